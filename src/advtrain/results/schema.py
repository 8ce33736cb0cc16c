"""The columns of the result files: what a row says, and the stamps that a file carries."""

import pyarrow as pa

OUTCOMES = pa.schema(
    [
        pa.field("cell", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("attack", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("protocol", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("norm", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("epsilon", pa.float64()),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("clean_prediction", pa.int16(), nullable=False),
        pa.field("adversarial_prediction", pa.int16(), nullable=False),
        pa.field("distance", pa.float32(), nullable=False),
        pa.field("objective", pa.float32(), nullable=False),
        pa.field("forward", pa.int32(), nullable=False),
        pa.field("backward", pa.int32(), nullable=False),
        pa.field("stage", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("claim", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("gain", pa.float32()),
        pa.field("late_gain", pa.float32()),
    ]
)
"""One row per (cell, attack, example). `attack` is the evaluation's name (`pgd_20-linf-0.2`),
`protocol` the hash of how it was made, `epsilon` is null for a transformation of the image,
`distance` is in the units of `epsilon`, `forward` and `backward` are the passes spent on the row's
example. `stage` is the part of an ensemble (AutoAttack) that broke the example, "" where none did;
`claim` what a float32 pass at another batch size said of a claimed adversarial example (one of
`CLAIMS`); `gain` how far the attack raised its objective, `late_gain` what of it came in the last
quarter of its steps, null where the attack has no such steps."""

CLAIMS = ("none", "confirmed", "not misclassified", "outside the set")
"""What becomes of an attack's claim that an image is adversarial: it made none; or the claim was
checked, and holds; or the model is right there after all; or the image is not allowed."""

PROBES = pa.schema(
    [
        pa.field("cell", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("prediction", pa.int16(), nullable=False),
        pa.field("loss", pa.float32(), nullable=False),
        pa.field("gradient", pa.float32(), nullable=False),
        pa.field("margin_gradient", pa.float32(), nullable=False),
        pa.field("zero_share", pa.float32(), nullable=False),
        pa.field("logit_change", pa.float32(), nullable=False),
        pa.field("gradient_cosine", pa.float32(), nullable=False),
        pa.field("probabilities", pa.bool_(), nullable=False),
    ]
)
"""One row per (cell, example): what the last weights' gradients look like at the clean image.
`loss` is the cross-entropy, `gradient` the l2 length of its input gradient and `zero_share` the
share of that gradient's entries that are exactly 0; `margin_gradient` the length of the margin's
gradient; `logit_change` the largest change of a logit, and `gradient_cosine` the cosine of the
two gradients, when the same image is evaluated a second time; `probabilities` says that the
outputs lie in [0, 1] and sum to 1."""

ADVERSARIAL = pa.schema(
    [
        pa.field("cell", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("attack", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("clean_prediction", pa.int16(), nullable=False),
        pa.field("adversarial_prediction", pa.int16(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("clean_prediction_name", pa.string(), nullable=False),
        pa.field("adversarial_prediction_name", pa.string(), nullable=False),
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("clean", pa.binary(), nullable=False),
        pa.field("x_adv", pa.binary(), nullable=False),
    ]
)
"""One row per (cell, attack, example) of the few examples that are shown, where an attack on the
last weights kept its images. `clean` and `x_adv` are the bytes of (C, H, W) little-endian float32
in [0, 1]; the names are those of the classes, `none` where a logit is not finite."""

CERTIFIED = pa.schema(
    [
        pa.field("cell", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("certificate", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("norm", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("epsilon", pa.float64()),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("prediction", pa.int16(), nullable=False),
        pa.field("radius", pa.float64(), nullable=False),
        pa.field("forward", pa.int32(), nullable=False),
        pa.field("backward", pa.int32(), nullable=False),
    ]
)
"""One row per (cell, certificate, example). `certificate` is the evaluation's name (`ibp-linf-0.2`,
`smoothing_025-l2`), `epsilon` is null for a certificate without a budget, `prediction` is -1 where
it abstains, and `radius` is how far the prediction is proved to stay, in `norm`: right or wrong, so
that an example is certified at r where the prediction is the label and the radius at least r."""

STAMPS = ("attack_key", "cell_key", "checkpoint", "code", "data", "protocol", "study")
"""What every file of rows says of its origin: the content keys of the evaluation (an attack or a
certificate) and of the training, the SHA-256 of the evaluated weights, the code digest of the
evaluation, the digest of the prepared data, the protocol in words, and the study that it was first
computed for (a result is shared by all studies in which its key stands)."""

PREFIX = "advtrain."
"""What the stamps' keys begin with in the metadata of the Parquet schema."""

CELLS = pa.schema(
    [
        pa.field("cell", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("module", pa.string(), nullable=False),
        pa.field("norm", pa.string()),
        pa.field("epsilon", pa.float64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
        pa.field("params", pa.string(), nullable=False),
        pa.field("data_hash", pa.string(), nullable=False),
        pa.field("checkpoint_hash", pa.string(), nullable=False),
        pa.field("code_digest", pa.string(), nullable=False),
        pa.field("epochs", pa.int64()),
        pa.field("examples", pa.int64()),
        pa.field("forward_passes", pa.float64()),
        pa.field("backward_passes", pa.float64()),
        pa.field("best_epoch", pa.int64()),
        pa.field("mlflow_experiment", pa.string(), nullable=False),
        pa.field("mlflow_run_name", pa.string(), nullable=False),
        pa.field("upstream", pa.string(), nullable=False),
        pa.field("evaluations", pa.string(), nullable=False),
    ]
)
"""One row per cell of a study. `params`, `upstream` and `evaluations` are JSON: the resolved
parameters, the keys and digests of the inputs, and what each evaluation says of itself."""

COSTS = pa.schema(
    [
        pa.field("cell", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("evaluation", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("data_share", pa.float64()),
        pa.field("attack_share", pa.float64()),
        pa.field("update_share", pa.float64()),
        pa.field("validation_share", pa.float64()),
        pa.field("images_per_second", pa.float64()),
        pa.field("peak_memory_bytes", pa.int64()),
    ]
)
"""One row per training (no evaluation) and per evaluation. Measured times: they differ between
runs of the same thing. The shares are of the time in these four sections of a training's epochs;
`images_per_second` counts the rows that weight steps were taken on, per second of data, attack and
update; `peak_memory_bytes` is of the device where it is a GPU, else of the process. Null where it
was not measured, and but for the memory for what is no training."""
