"""What runs beside a command's own runs, and how it ends."""

import signal
import threading
from pathlib import Path

import pytest

from jaxgen import Preempted
from jaxgen.cli.beside import Beside, Stopped
from jaxgen.sampler.checkpoint.folder import Interrupted


def test_functions_run_in_their_order_in_another_thread():
    seen = []

    def function(number, reporter):
        reporter.start("a run")
        reporter.update(None)  # nobody has asked it to stop
        seen.append((number, threading.current_thread() is threading.main_thread()))
        return 10 * number

    with Beside() as beside:
        promised = [beside.submit(function, i) for i in range(3)]
        assert [beside.result(promise, Path("run")) for promise in promised] == [0, 10, 20]
    assert seen == [(0, False), (1, False), (2, False)]


def test_an_error_is_raised_where_the_result_is_asked_for():
    def function(reporter):
        raise ValueError("of the function")

    with Beside() as beside, pytest.raises(ValueError, match="of the function"):
        beside.submit(function).result(timeout=30)


def test_they_stop_when_the_command_does():
    begun = threading.Event()

    def forever(reporter):
        while True:
            reporter.update(None)
            begun.set()

    promised = []

    def command():
        with Beside() as beside:
            promised.extend([beside.submit(forever), beside.submit(forever)])
            assert begun.wait(30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command()
    first, second = promised
    assert isinstance(first.exception(timeout=30), Stopped)
    assert second.cancelled()  # its turn had not come


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, Preempted), (signal.SIGINT, Interrupted)]
)
def test_a_signal_ends_the_wait_and_names_the_run(number, kind):
    waiting = threading.Event()

    def until_stopped(reporter):
        assert waiting.wait(30)
        signal.pthread_kill(threading.main_thread().ident, number)
        while True:
            reporter.update(None)

    def command():
        with Beside() as beside:
            promised = beside.submit(until_stopped)
            threading.Timer(0.3, waiting.set).start()  # by then the command waits
            beside.result(promised, Path("a/run"))

    with pytest.raises(kind) as stop:
        command()
    assert stop.value.folder == Path("a/run")
