"""Hooks registered under the scope ``mmvitaccel``."""

from mmvitaccel.hooks.clip_visualization_hook import ClipVisualizationHook
from mmvitaccel.hooks.cost_hook import CostHook
from mmvitaccel.hooks.deploy_hook import DeployHook

__all__ = ["ClipVisualizationHook", "CostHook", "DeployHook"]
