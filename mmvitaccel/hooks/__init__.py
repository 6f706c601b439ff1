"""Hooks registered under the scope ``mmvitaccel``."""

from mmvitaccel.hooks.deploy_hook import DeployHook

__all__ = ["DeployHook"]
