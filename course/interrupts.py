"""Ctrl-C and a notebook's stop button, which wait while something is half done."""

import signal
import threading
from types import FrameType
from typing import Self


class Interrupts:
    """While it is entered, an interrupt that comes between hold() and release() waits.

    Whoever interrupts a second time does not want to wait: that comes at once. Only the
    main thread is ever interrupted; entered in another thread, it does nothing.

    Attributes
    ----------
    held : True between hold and release
    """

    def __init__(self) -> None:
        self.held = False
        self._waiting: tuple[int, FrameType | None] | None = None
        self._usual = None

    def __enter__(self) -> Self:
        usual = signal.getsignal(signal.SIGINT)
        if callable(usual) and threading.current_thread() is threading.main_thread():
            self._usual = usual
            signal.signal(signal.SIGINT, self._arrive)
        return self

    def __exit__(self, *error: object) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)

    def hold(self) -> None:
        """Let an interrupt wait from now on."""
        self.held = True

    def release(self) -> None:
        """Let interrupts through again, first the one that waits, if any."""
        self.held = False
        if self._waiting is not None:
            arrived, self._waiting = self._waiting, None
            self._usual(*arrived)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if self.held and self._waiting is None:
            self._waiting = number, frame
        else:
            self._usual(number, frame)
