"""Start a service on this machine: ``python -m mmvitaccel.serving.ray_app SERVICE.yaml``.

It is ``serve run SERVICE.yaml`` with Ray itself on loopback, no usage statistics and no dashboard.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmvitaccel.errors import UserError, one_line, one_sentence_errors
from mmvitaccel.extras import require
from mmvitaccel.serving.ray_app import loopback


@one_sentence_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("service", type=Path, help="YAML, such as configs/serving/detector.yaml")
    parser.add_argument("--cpus", type=int, help="cores that Ray may use (default: all)")
    parser.add_argument(
        "--object-store-megabytes", type=int, default=200, help="of shared memory (default 200)"
    )
    args = parser.parse_args(argv)
    require("serve", "ray")
    from mmvitaccel.serving.ray_app.service_file import check_service

    wanted = check_service(args.service)
    cores = start_ray(args.cpus, args.object_store_megabytes)
    if wanted > cores:
        # Serve would wait for them forever
        raise UserError(
            f"{args.service}: its replicas reserve {wanted:g} cores (replicas times cpus) and Ray "
            f"has {cores:g}; reserve fewer, or give --cpus."
        )
    from ray.serve.scripts import cli

    cli(["run", str(args.service)])


def start_ray(cpus: int | None, object_store_megabytes: int) -> float:
    """Start Ray from this process, reachable from this machine only; returns its cores.

    Raises:
        UserError: Ray does not start.
    """
    loopback.set_variables()
    import ray

    try:
        ray.init(
            address="local",
            namespace="serve",
            num_cpus=cpus,
            object_store_memory=object_store_megabytes * 10**6,
            include_dashboard=False,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray does not start: {one_line(error)}") from error
    print(f"Ray is at {ray.get_runtime_context().gcs_address}", flush=True)
    return float(ray.cluster_resources().get("CPU", 0))


if __name__ == "__main__":
    main()
