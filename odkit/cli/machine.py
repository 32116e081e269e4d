"""The command that looks at this machine."""

from pathlib import Path

from odkit.cli.shared import command, print_json


@command
def doctor(
    *,
    data: Path | None = None,
    work: Path | None = None,
    need_gpu: bool = False,
    only: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Say whether training will work on this machine, and if not, what to type; the exit status is 1 if it will not.

    Args:
        data: Folder with the images; default: $ODKIT_DATA, or /data in odkit's image.
        work: Folder that runs are written to; default: $ODKIT_WORK, /work in odkit's image, or the current one.
        need_gpu: A missing GPU is a failure in place of a warning.
        only: Names of the checks wanted, as the report shows them; default: all.
        json: Print JSON.
    """
    from odkit.doctor import check

    report = check(data=data, work=work, need_gpu=need_gpu, only=only)
    if json:
        print_json(report.to_dict())
    else:
        print(report)
    return report.exit_status
