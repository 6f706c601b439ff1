"""Hook that folds the BatchNorm of a model before a test."""

from __future__ import annotations

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmvitaccel.registry import HOOKS


@HOOKS.register_module()
class DeployHook(Hook):
    """Call ``switch_to_deploy()`` of all modules that have it, before a test.

    Does nothing in training and validation. The model stays folded after the test.
    """

    # After all hooks that change the weights for the test
    priority = "LOWEST"

    def before_test_epoch(self, runner: Runner) -> None:
        """Fold the runner's model.

        Raises:
            ValueError: No module can be folded.
        """
        names = fold_model(runner.model)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                # EMA swaps its parameters with the model's, one by one, after the test
                fold_model(hook.ema_model)
        print_log(f"DeployHook: folded {', '.join(names)}.", logger="current")


def fold_model(model: nn.Module) -> list[str]:
    """Call ``switch_to_deploy()`` of the outermost modules that have it, inside wrappers too.

    Args:
        model: Changed in place. Folding it again has no effect.

    Returns:
        Names of these modules.

    Raises:
        ValueError: There is no such module.
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
