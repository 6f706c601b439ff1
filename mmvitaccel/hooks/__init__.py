"""Hooks registered under the scope ``mmvitaccel``."""

from mmvitaccel.hooks.budget_hook import BudgetHook
from mmvitaccel.hooks.budget_schedule_hook import BudgetScheduleHook
from mmvitaccel.hooks.clip_visualization_hook import ClipVisualizationHook
from mmvitaccel.hooks.cost_hook import CostHook
from mmvitaccel.hooks.deploy_hook import DeployHook
from mmvitaccel.hooks.eventful_hook import EventfulHook
from mmvitaccel.hooks.random_budget_hook import RandomBudgetHook
from mmvitaccel.hooks.rlt_hook import RLTHook
from mmvitaccel.hooks.tome_hook import ToMeHook

__all__ = [
    "BudgetHook",
    "BudgetScheduleHook",
    "ClipVisualizationHook",
    "CostHook",
    "DeployHook",
    "EventfulHook",
    "RLTHook",
    "RandomBudgetHook",
    "ToMeHook",
]
