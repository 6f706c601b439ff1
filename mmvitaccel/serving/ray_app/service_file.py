"""Checks the YAML of a service before Ray is started; in a replica, mistakes end in tracebacks."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mmvitaccel.errors import UserError, one_line
from mmvitaccel.serving.ray_app.settings import ServiceSettings
from mmvitaccel.text_files import read_text

_OURS = "mmvitaccel.serving.ray_app:build"


def check_service(path: Path) -> float:
    """Check a service's file, and that its port is free.

    Returns:
        Number of cores that the replicas of our applications in it reserve.

    Raises:
        UserError: The file is not that of a service, an argument of the application is wrong, a
            file that it names does not exist, or another process listens on the port.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the YAML of a service.")
    try:
        content = yaml.safe_load(read_text(path, UserError))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}; correct it.") from error
    applications = content.get("applications") if isinstance(content, dict) else None
    if not isinstance(applications, list) or not applications:
        raise UserError(
            f"{path} has no list `applications`; begin with configs/serving/detector.yaml."
        )
    cores = 0.0
    for application in applications:
        if isinstance(application, dict) and application.get("import_path") == _OURS:
            service = _checked_args(path, application.get("args") or {})
            cores += service.replicas * service.cpus
    http = content.get("http_options") or {}
    if not isinstance(http, dict):
        raise UserError(
            f"{path}: http_options is {http!r}; give settings by name, such as `port: 8000`."
        )
    _check_port(path, http.get("host", "0.0.0.0"), http.get("port", 8000))
    return cores


def _checked_args(path: Path, args: Any) -> ServiceSettings:
    """The ``args`` of an application of ours."""
    if not isinstance(args, dict):
        raise UserError(f"{path}: args is {args!r}; give settings by name, such as `config: FILE`.")
    try:
        service = ServiceSettings(**args)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: args: {name}={first['input']!r}: {first['msg']}; correct it (the settings "
            f"are {', '.join(ServiceSettings.model_fields)})."
        ) from error
    except UserError as error:
        raise UserError(f"{path}: args: {error}") from error
    for name in ("config", "checkpoint"):
        file = getattr(service, name)
        if file is not None and "::" not in file and "://" not in file and not Path(file).is_file():
            raise UserError(f"{path}: args: {name}={file!r} does not exist; give another path.")
    return service


def _check_port(path: Path, host: Any, port: Any) -> None:
    """Check that nobody listens on a port."""
    try:
        family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError, TypeError) as error:
        used = getattr(error, "errno", None) == errno.EADDRINUSE
        what = "is in use" if used else f"cannot be used ({one_line(error)})"
        raise UserError(
            f"{path}: http_options: port {port!r} of {host!r} {what}; give another port."
        ) from error
