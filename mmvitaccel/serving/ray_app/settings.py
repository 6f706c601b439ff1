"""The settings of a service's YAML: its model and its limits."""

from __future__ import annotations

from importlib import import_module

from pydantic import BaseModel, ConfigDict, Field

from mmvitaccel.budget.budget import Budget
from mmvitaccel.errors import UserError
from mmvitaccel.serving.frames import FrameLimits
from mmvitaccel.serving.model import ServedModel
from mmvitaccel.serving.worker import StreamWorker


class ServiceSettings(BaseModel):
    """The ``args`` of the application; one of ``config`` and ``model`` is given."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    config: str | None = Field(None, description="Path of a detector's config.")
    checkpoint: str | None = Field(None, description="Path of its weights.")
    model: str | None = Field(
        None, description="package.module:function that returns a model of your own."
    )
    k: int | None = Field(None, description="Tokens that pass a gate; without: computed whole.")
    floor: int = Field(0, description="Of these, guaranteed to each stream.")
    milliseconds: float | None = Field(None, description="Budget of a frame; k is its lowest k.")
    max_k: int | None = Field(None, description="The highest k of a budget.")
    replicas: int = Field(1, ge=1, description="Processes with one model each.")
    cpus: float = Field(1.0, ge=0, description="Cores that Ray reserves for each.")
    network: bool = Field(False, description="Whether other machines may reach Ray's processes.")
    max_open: int = 1024
    max_streams: int = Field(16, description="Streams whose state a replica keeps.")
    state_megabytes: float | None = Field(None, description="Limit of their state, in 1e6 bytes.")
    max_batch: int = 8
    max_waiting: int = 2
    megabytes: float = FrameLimits.megabytes
    megapixels: float = FrameLimits.megapixels
    answer_seconds: float = Field(30.0, gt=0, description="How long to wait for an answer.")
    report_seconds: float = Field(
        2.0, gt=0, description="How long health and metrics wait for a replica."
    )

    @property
    def limits(self) -> FrameLimits:
        """Limits on the size of a frame."""
        return FrameLimits(self.megabytes, self.megapixels)

    def worker(self) -> StreamWorker:
        """Create a worker with its model.

        Raises:
            UserError: Settings contradict each other, or the model cannot be built.
        """
        model = self._model()
        budget = None
        if self.milliseconds is not None:
            if model.handle is None or self.k is None:
                raise UserError(
                    f"milliseconds={self.milliseconds:g} needs k, the lowest k of the budget; give "
                    "k and max_k."
                )
            bounds = (self.k, self.max_k or 16 * self.k)
            budget = Budget(model.handle, milliseconds=self.milliseconds, k=bounds)
        return StreamWorker(
            model,
            budget,
            max_open=self.max_open,
            max_streams=None if model.handle is None else self.max_streams,
            max_bytes=None if self.state_megabytes is None else int(1e6 * self.state_megabytes),
            max_batch=self.max_batch,
            max_waiting=self.max_waiting,
            limits=self.limits,
        )

    def _model(self) -> ServedModel:
        if (self.config is None) == (self.model is None):
            what = "neither" if self.config is None else "both"
            raise UserError(f"{what} of config and model are given; give exactly one.")
        if self.model is not None:
            module, _, function = self.model.partition(":")
            if not function:
                raise UserError(f"model={self.model!r} is not of the form package.module:function.")
            return getattr(import_module(module), function)()
        from mmvitaccel.serving.detector_model import DetectorModel

        return DetectorModel(
            self.config, self.checkpoint, self.k, self.floor, max_streams=self.max_streams
        )
