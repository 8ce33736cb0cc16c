"""Cells of Free adversarial training as the poster has them, with accuracies that are chosen."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from advtrain.reporting.measure import Measured
from advtrain.reporting.study import StudyInfo, check_info
from tests.published.test_protocols import RECIPE
from tests.results import synthetic

BUDGET = 8 / 255
PARAMETERS: dict[str, dict[str, Any]] = {
    "natural": {},
    "free": {"replays": 8, "step_size": BUDGET, "through_clip": True},
    "pgd_at": {"steps": 7, "step_size": BUDGET / 4, "random_start": True, "crafting": "train"},
    "iaat": {"steps": 10, "least_step": BUDGET / 4},
    "fgsm_mixed": {"clean_fraction": 0.0, "step_size": BUDGET},
    "gaussian": {"sigma": 0.25},
    "ibp": {"warmup": 0.033, "ramp": 0.167},
}
OWN = {
    "pgd": {"step_size": BUDGET / 4, "restarts": 1, "random_start": True, "iterate": "final"},
    "autoattack": {"version": "standard"},
    "smoothing": {"sigma": 0.25, "selection": 100, "samples": 100_000, "alpha": 0.001},
}


def poster_info(modules: Mapping[str, str], **changes: Any) -> StudyInfo:
    """Tell of a study of CIFAR-10 with methods of some modules."""
    told: dict[str, Any] = {
        "dataset": "cifar10_50k",
        "classes": 10,
        "methods": list(modules),
        "method_modules": dict(modules),
        "method_updates": dict.fromkeys(modules, "plain"),
        "method_upstream": {},
        "method_additions": {},
        "attacks": ["pgd_20"],
        "curve_attack": None,
        "data_set": {"module": "cifar10", "parameters": {}, "split": {"validation": 0.0}},
        **changes,
    }
    return check_info(synthetic.study_info(**told))


def cell_rows(
    cells: Sequence[Measured],
    info: StudyInfo,
    *,
    recipe: Mapping[str, Any] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    depth: int = 32,
) -> pa.Table:
    """Write what the cells say of themselves: the poster's recipe, with changes."""
    rows = []
    for cell in cells:
        label = cell.name.label
        module = info["method_modules"][label]
        threat = None
        if cell.name.norm:
            threat = {"norm": cell.name.norm, "epsilon": cell.name.epsilon}
        params = {
            "method": {
                "name": label,
                "module": module,
                "parameters": {**PARAMETERS[module], **(own or {}).get(label, {})},
            },
            "model": {
                "name": "wide",
                "module": "wide_resnet",
                "parameters": {"depth": depth, "widen": 10},
            },
            "threat": threat,
            "recipe": {"name": "poster", "parameters": {**RECIPE, **(recipe or {})}},
            "start": None,
        }
        evaluations = {
            one.name: {"params": evaluation(one.name, one.attack, one.norm, one.epsilon)}
            for one in cell.evaluations
        }
        for one in cell.certificates:
            evaluations[one.name] = {
                "params": {
                    "certificate": {
                        "module": one.certificate.partition("_")[0],
                        "parameters": OWN.get(one.certificate.partition("_")[0], {}),
                    },
                    "threat": {"norm": one.norm, "epsilon": one.epsilon},
                }
            }
        rows.append(
            {
                "cell": cell.cell,
                "label": label,
                "examples": 50_000,
                "params": json.dumps(params),
                "evaluations": json.dumps(evaluations),
            }
        )
    return pa.Table.from_pylist(rows)


def evaluation(name: str, attack: str, norm: str, epsilon: float | None) -> dict[str, Any]:
    """Write how an attack that is named `pgd_20` or `autoattack` was run."""
    module, _, steps = attack.partition("_")
    parameters = {**OWN.get(module, {}), **({"steps": int(steps)} if steps else {})}
    return {
        "attack": {"name": attack, "module": module, "parameters": parameters},
        "threat": {"norm": norm, "epsilon": epsilon},
        "weights": "best" if name.endswith("-best") else "last",
    }
