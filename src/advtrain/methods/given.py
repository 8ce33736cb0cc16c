"""Given weights: a cell that is not trained, so that anybody's model stands in the tables."""

from dataclasses import dataclass
from typing import ClassVar

from advtrain.params.files import File


@dataclass(frozen=True)
class Given:
    """Finished weights in the place of a training: they are the cell's last and best ones.

    The reader, the graph and the tables take it for a method. It perturbs nothing and minimises
    nothing, so that it is none for the loop.

    Args:
        weights: file of a state dict, safetensors or `torch.save`'s; without one, the weights that
            the function of an external model gives its network.
        part: which of several state dicts that fit the model, by its dotted name in the file
            (`ema_state_dict`); needed only if there are several.
    """

    needs_threat: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    per_example: ClassVar[tuple[str, ...]] = ()

    weights: File = ""
    part: str = ""
