"""Fold the BatchNorm of a model that can be folded, once its weights are there to be tested."""

from __future__ import annotations

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class DeployHook(Hook):
    """Call ``switch_to_deploy()`` wherever a model has it, after the weights and before the test.

    Training and its validation are left alone. The model stays folded after the test.
    """

    # reason: after any hook that still changes the weights for the test
    priority = "LOWEST"

    def before_test_epoch(self, runner: Runner) -> None:
        """Fold the runner's model.

        Raises:
            ValueError: Nothing in the model can be folded.
        """
        names = fold_model(runner.model)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                # reason: after the test it exchanges parameters with the model, pair by pair
                fold_model(hook.ema_model)
        print_log(f"DeployHook: folded {', '.join(names)}.", logger="current")


def fold_model(model: nn.Module) -> list[str]:
    """Call ``switch_to_deploy()`` of the outermost modules that have it, wrappers passed over.

    Args:
        model: Changed in place; folding it again changes nothing.

    Returns:
        The names of these modules.

    Raises:
        ValueError: There is none.
    """
    names: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or not outer for outer in names)
        if not inside and callable(getattr(module, "switch_to_deploy", None)):
            module.switch_to_deploy()
            names.append(name)
    if not names:
        raise ValueError(
            f"DeployHook: no module of {type(model).__name__} has switch_to_deploy(); leave out "
            "the hook or --deploy, or use a backbone that folds, such as mmvitaccel.EfficientViT."
        )
    return names
