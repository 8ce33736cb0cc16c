"""One study of a report: where its rows and figures lie, and what is written of them, once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from advtrain.reporting.captions import Caption
from advtrain.reporting.figures import captions
from advtrain.reporting.sheet import Sheet
from advtrain.reporting.shown import Shown, nothing_collected, select
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.reporting.tables import sheets
from advtrain.results.collect import read_collected


@dataclass(frozen=True)
class ReferenceRun:
    """A reference run of a study that stands beside the study's own run.

    Attributes:
        name: `digits@cpu`.
        words: what it was made on, with and when.
        environment: the versions that it was made with.
        collected: the folder of its collected tables.
    """

    name: str
    words: str
    environment: Mapping[str, str]
    collected: Path


@dataclass(frozen=True)
class StudyReport:
    """One study, from which the page, the paper, the metrics and the plots are written.

    Its rows are read, and its tables and captions computed, when the first of them asks.

    Attributes:
        info: the study in words.
        collected: the folder of its collected tables; without it the study shows as failed.
        figures: the folder of its figures.
        reference: if these are the committed rows of a reference run, what it was made on, with and
            when; its `name` in `info` is then `cifar10_cpu@cpu`.
        beside: the reference runs of a study that was run here.
    """

    info: StudyInfo
    collected: Path
    figures: Path
    reference: str | None = None
    beside: tuple[ReferenceRun, ...] = ()

    @cached_property
    def shown(self) -> Shown:
        """The study's rows, grouped; none without the folder.

        Raises:
            ValueError: if `info` does not tell of the study in full.
        """
        info = check_info(self.info)
        there = self.collected.is_dir()
        return select(read_collected(self.collected) if there else nothing_collected(), info)

    @cached_property
    def sheets(self) -> dict[str, Sheet]:
        """The tables, by name."""
        return sheets(self.shown)

    @cached_property
    def captions(self) -> dict[str, Caption]:
        """The captions of the figures, by name."""
        return captions(self.shown)
