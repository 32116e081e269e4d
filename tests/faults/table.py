"""Faults by table: what happens, what the person sees, what survived, and the tests that hold it.

`docs/reliability.md` prints it (`tests/hostile/page.py`). `test_table.py` holds the rows to the tests they name: each
is there, and the words in quotation marks are words that one of them asserts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        what: What happens.
        sees: What the person sees; “words” are said so, and stand in a test.
        survived: What is left, and what goes on.
        tests: The tests that hold it, as FILE::NAME below tests/.
    """

    what: str
    sees: str
    survived: str
    tests: tuple[str, ...]


FAULTS: dict[str, tuple[Fault, ...]] = {
    "Processes that are killed": (
        Fault(
            "The worker is killed (SIGKILL) twenty times, five of them while it writes a checkpoint",
            "the run has “died”, and `odkit resume` goes on",
            "everything: weights, averaged weights and history end as those of a run that met nothing",
            ("training/test_trainer.py::test_twenty_kills_lose_nothing",),
        ),
        Fault(
            "The worker is stopped by Ctrl-C, `docker stop`, SLURM (SIGINT, SIGTERM)",
            "the run is “stopped”",
            "the step under way: it is finished and saved first",
            ("training/test_trainer.py::test_signals_save_and_stop",),
        ),
        Fault(
            "One of two training processes is killed in the middle of a step",
            "nothing: both start again from the last checkpoint, and the run is “finished” by itself",
            "everything: the steps are those of an undisturbed run",
            ("training/test_trainer.py::test_a_process_killed_in_the_middle_of_a_step_is_started_again",),
        ),
        Fault(
            "The launcher of two processes is killed, alone or with one of them",
            "the run is “stopped”, “failed” or has “died”: “another process of this run has ended”",
            "the last checkpoint; no process is left, and nobody is let in before the last of them has ended",
            ("training/test_trainer.py::test_a_lost_process_ends_the_run_resumably",),
        ),
        Fault(
            "A data worker is killed",
            "a warning in the run, of the kind “data_worker”",
            "the run goes on with a new one",
            ("training/test_errors.py::test_a_killed_data_worker_is_replaced",),
        ),
        Fault(
            "The worker is killed while its data worker hangs",
            "the run has “died”",
            "no process is left",
            ("faults/test_disks.py::test_a_killed_worker_takes_its_hung_data_worker_along",),
        ),
        Fault(
            "The GPU vanishes in the middle of a step",
            "“the GPU failed or is gone”, with what to look at and to type, `odkit resume ... “--device cpu”` among it",
            "every step: the state between two steps is saved, or where the GPU is dead the last checkpoint",
            ("training/test_errors.py::test_a_gpu_that_vanishes_leaves_a_run_that_goes_on_elsewhere",),
        ),
        Fault(
            "FiftyOne's database (mongod) is killed, alone or with its keeper",
            "nothing: it is started again at once, or with the next call",
            "datasets and tags, as of a tenth of a second before",
            (
                "faults/test_labs.py::test_two_labs_of_one_folder_lose_their_parts_one_after_another",
                "browsing/test_services.py::test_a_killed_database_is_started_anew",
                "browsing/test_services.py::test_a_killed_keeper_leaves_nothing_in_the_way",
                "browsing/test_convert.py::test_a_database_that_was_killed_goes_on_with_what_it_held",
            ),
        ),
        Fault(
            "The server of FiftyOne's App is killed",
            "the App's place in the cell is empty until the cell is run again",
            "everything; the App of another JupyterLab does not notice",
            ("faults/test_labs.py::test_two_labs_of_one_folder_lose_their_parts_one_after_another",),
        ),
        Fault(
            "A notebook's kernel is killed while its run trains",
            "JupyterLab starts a new kernel, which finds the run “running” and shows it from step 0 on",
            "the run, the tags, the App",
            (
                "faults/test_labs.py::test_two_labs_of_one_folder_lose_their_parts_one_after_another",
                "browser/test_dashboard_in_lab.py::test_a_new_kernel_shows_everything_from_step_0",
            ),
        ),
        Fault(
            "The page with a notebook is reloaded while its run trains",
            "the cell is empty, as JupyterLab shows what it saved; once the kernel is interrupted, "
            "“od.open_run('four').wait()” shows the run from step 1 on, with its buttons",
            "the run, which does not notice",
            ("browser/test_dashboard_in_lab.py::test_a_reloaded_page_shows_the_run_again",),
        ),
        Fault(
            "JupyterLab is killed while a run that was started in it trains",
            "it is gone, and its kernels and its App with it",
            "the run goes on training, and whoever comes next stops it or waits for it",
            ("faults/test_labs.py::test_two_labs_of_one_folder_lose_their_parts_one_after_another",),
        ),
        Fault(
            "A tracker's follower is killed",
            "nothing in the run; the tracker stands still until `odkit track`",
            "the run",
            ("runs/test_trackers.py::test_a_run_goes_on_without_its_follower",),
        ),
        Fault(
            "A process is killed while it writes a file of any kind",
            "the file as it was before",
            "the old file, whole; a `.tmp` beside it, in nobody's way",
            ("system/test_files.py::test_a_process_that_is_killed_leaves_the_old_file",),
        ),
    ),
    "Disks": (
        Fault(
            "The disk is full at each file that a worker writes, in turn, at its first byte or in its middle",
            "“the disk is full”, which file, and “Free some space, then: odkit resume”",
            "everything before: one run that met all of it ends as one that met nothing; no file is half-written",
            ("faults/test_disks.py::test_the_disk_is_full_at_each_write_of_a_worker_in_turn",),
        ),
        Fault(
            "The disk is full when the report or the model card is written",
            "a warning: “the report could not be written”, and what to type",
            "the run, “finished”",
            ("faults/test_disks.py::test_the_disk_is_full_at_each_write_of_a_worker_in_turn",),
        ),
        Fault(
            "The disk is full at each file that a new run is made of",
            "“the disk is full”, which file, and “Free some space, then try again”",
            "no half-made run: its name is free",
            ("faults/test_disks.py::test_the_disk_is_full_at_each_write_of_a_new_run",),
        ),
        Fault(
            "A run on a full disk is started, resumed or asked to stop",
            "“the disk is full”, and “Free some space, then try again”",
            "the run as it was, settings included; it can be looked at",
            ("faults/test_disks.py::test_a_run_on_a_full_disk_is_not_started_and_not_changed",),
        ),
        Fault(
            "The disk has too little room for the checkpoints",
            "“checkpoints need about” how much, before the first step",
            "the run, not begun",
            ("faults/test_disks.py::test_a_disk_too_small_is_refused_before_the_start",),
        ),
        Fault(
            "The disk fills up while a worker trains",
            "“the disk is full” in the run and on the command line",
            "the last checkpoint; room for these words is kept from the start",
            ("faults/test_disks.py::test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole",),
        ),
        Fault(
            "The disk turns read-only while a worker trains",
            "the run has “died”: “the disk is read-only”; “cannot be written” is said to whatever would write there",
            "the last checkpoint: once it may be written again, the run goes on and is “finished”",
            ("faults/test_disks.py::test_a_disk_that_turns_read_only_in_mid_training",),
        ),
        Fault(
            "The run's folder belongs to somebody else",
            "“cannot be written”, and how to have a copy of one's own",
            "the run: it can be looked at, judged and shown, and no more",
            ("runs/test_run.py::test_a_read_only_run_can_be_looked_at_and_no_more",),
        ),
        Fault(
            "The disk of the run hangs for a while",
            "the steps wait",
            "every step: the run goes on when the disk does, and is “finished”",
            ("faults/test_disks.py::test_a_disk_that_hangs_for_a_while_is_waited_for",),
        ),
        Fault(
            "A picture hangs, as on a network disk whose server is gone",
            "the run has “failed”, and says which pictures its data worker was at",
            "the last checkpoint",
            (
                "faults/test_disks.py::test_a_hung_data_worker_ends_with_its_files_named",
                "faults/test_disks.py::test_a_hung_data_worker_while_judging_is_named_too",
            ),
        ),
        Fault(
            "A file server has lent a picture to somebody else, and takes its time to get it back",
            "nothing: it is waited for",
            "the picture",
            ("faults/test_disks.py::test_a_file_on_loan_is_waited_for",),
        ),
    ),
    "Clock and network": (
        Fault(
            "The clock is set back by a day in mid-training, again and again",
            "the time left as before",
            "the run, “finished”, with the durations that it really took",
            (
                "training/test_errors.py::test_a_clock_that_jumps_changes_nothing",
                "runs/test_dashboard.py::test_time_left_outlives_a_clock_that_is_set_back",
            ),
        ),
        Fault(
            "There is no network, and a detector's weights are not here yet",
            "“Three ways out”",
            "everything that needs none: the bundled detector, the demo, data, runs",
            ("detection/test_detector.py::test_without_a_network_the_error_says_the_ways_out",),
        ),
        Fault(
            "The network takes every connection and answers none, or falls silent in the middle of a file",
            "“timed out”, after a minute without a byte, and “Three ways out”",
            "no half a file where the weights belong",
            ("detection/test_detector.py::test_a_network_that_swallows_everything_is_given_up",),
        ),
        Fault(
            "A tracker's server does not answer",
            "a warning in the run; `odkit track` gives up and says so",
            "the run, which does not wait for it",
            (
                "runs/test_trackers.py::test_a_server_that_does_not_answer_ends_the_command",
                "runs/test_trackers.py::test_a_tracker_that_fails_is_tried_again_and_said_once",
            ),
        ),
    ),
    "Two at a time": (
        Fault(
            "Two workers are started for one run",
            "the second is refused: “another worker”",
            "the first one's work",
            ("runs/test_run.py::test_a_second_worker_gives_up",),
        ),
        Fault(
            "Two JupyterLabs work in one folder",
            "each its own App, both the same datasets, tags and runs",
            "either, when the other or a part of it is killed",
            ("faults/test_labs.py::test_two_labs_of_one_folder_lose_their_parts_one_after_another",),
        ),
        Fault(
            "Two processes put one dataset into the App at once",
            "one dataset",
            "all of it, once",
            ("browsing/test_convert.py::test_two_processes_at_once_make_one_whole_dataset",),
        ),
        Fault(
            "The database's folder is in use in another container",
            "“Another container or machine uses its folder”, and how to name another",
            "the other's database",
            ("browsing/test_services.py::test_a_folder_used_from_another_container",),
        ),
    ),
    "Containers": (
        Fault(
            "The container is stopped in mid-training, from a notebook, a command or an `exec`",
            "the run is “stopped”",
            "the step under way, and the run: another container resumes it",
            (
                "container/test_image.py::test_a_stop_leaves_a_run_that_resumes_and_belongs_to_its_owner",
                "container/test_image.py::test_a_run_that_a_notebook_started_survives_the_stop_too",
                "container/test_image.py::test_a_run_that_came_in_by_exec_survives_the_stop_too",
            ),
        ),
        Fault(
            "The container is killed in mid-training, and its volume moved to another path",
            "the run has “died”, and `odkit resume` goes on in a new container",
            "the last checkpoint, wherever the folder lies",
            ("container/test_image.py::test_a_killed_container_s_work_goes_on_in_another_place",),
        ),
        Fault(
            "The container is started again after its folder got another owner",
            "nothing",
            "everything, with its new owner",
            ("container/test_image.py::test_a_restart_after_the_folder_got_another_owner",),
        ),
    ),
}
"""Every fault by title, in the order of the page."""
