"""The settings of a service's YAML: its model and its limits."""

from __future__ import annotations

import math
from importlib import import_module

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmvitaccel.budget.budget import Budget
from mmvitaccel.errors import UserError
from mmvitaccel.serving.frames import FrameLimits
from mmvitaccel.serving.model import ServedModel
from mmvitaccel.serving.worker import StreamWorker


class ServiceSettings(BaseModel):
    """The ``args`` of the application; one of ``config`` and ``model`` is given.

    Raises:
        ValueError: A setting is unknown or out of its range.
        UserError: Settings contradict each other.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    config: str | None = Field(None, description="Path of a detector's config.")
    checkpoint: str | None = Field(None, description="Path of its weights.")
    model: str | None = Field(
        None, description="package.module:function that returns a model of your own."
    )
    k: int | None = Field(None, ge=1, description="Tokens that pass a gate; without it all.")
    floor: int = Field(0, ge=0, description="Of these, guaranteed to each stream.")
    milliseconds: float | None = Field(None, gt=0, description="Budget of a frame, from k on.")
    max_k: int | None = Field(None, ge=1, description="The highest k of a budget.")
    replicas: int = Field(1, ge=1, description="Processes with one model each.")
    cpus: float = Field(1.0, ge=0, description="Cores that Ray reserves for each.")
    network: bool = Field(False, description="Whether other machines may reach Ray's processes.")
    max_open: int = Field(1024, ge=1)
    max_streams: int = Field(16, ge=1, description="Streams whose state a replica keeps.")
    state_megabytes: float | None = Field(None, gt=0, description="Limit of it, in 1e6 bytes.")
    max_batch: int = Field(8, ge=1)
    max_waiting: int = Field(2, ge=1)
    megabytes: float = Field(FrameLimits.megabytes, gt=0, allow_inf_nan=False)
    megapixels: float = Field(FrameLimits.megapixels, gt=0, allow_inf_nan=False)
    answer_seconds: float = Field(30.0, gt=0, description="How long to wait for an answer.")
    report_seconds: float = Field(
        2.0, gt=0, description="How long health and metrics wait for a replica."
    )

    @model_validator(mode="after")
    def _agree(self) -> ServiceSettings:
        """Refuse settings that contradict each other, or that nothing would read."""
        own = self.model is not None
        budget = self.milliseconds is not None
        faults = [
            (own == (self.config is not None), "give exactly one of config and model"),
            (own and ":" not in (self.model or ""), "give model as package.module:function"),
            (own and self.checkpoint is not None, "checkpoint is only read with config"),
            (own and self.floor > 0, "floor is only read with config"),
            (own and self.k is not None and not budget, "k is only read with config or a budget"),
            (self.floor > 0 and self.k is None, "floor is a part of k; give k too"),
            (self.floor > (self.k or math.inf), "floor is above k"),
            (budget and self.k is None, "milliseconds needs k, the lowest k of the budget"),
            (self.max_k is not None and not budget, "max_k is of a budget; give milliseconds too"),
            ((self.max_k or math.inf) < (self.k or 0), "max_k is below k, the lowest k"),
        ]
        names = ("config", "model", "checkpoint", "k", "floor", "milliseconds", "max_k")
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        for wrong, sentence in faults:
            if wrong:
                raise UserError(f"the service's settings are {given}: {sentence}.")
        return self

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
            if model.handle is None:
                raise UserError(
                    f"milliseconds={self.milliseconds:g} needs a model with Eventful, and "
                    f"{self.model} has no handle."
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
        if self.model is not None:
            module, _, function = self.model.partition(":")
            return getattr(import_module(module), function)()
        from mmvitaccel.serving.detector_model import DetectorModel

        return DetectorModel(
            self.config, self.checkpoint, self.k, self.floor, max_streams=self.max_streams
        )
