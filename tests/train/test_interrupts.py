"""Ctrl-C while training."""

from __future__ import annotations

import os
import signal

import pytest
from training_runs import everything, fit

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.layer import Layer
from gpunet.train.callbacks import Checkpoint, EarlyStopping


class Signalling(Layer):
    """Has Ctrl-C come in the midst of the seventh step, in its forward."""

    calls = 0

    def forward(self, x, ctx):
        Signalling.calls += ctx.training
        if Signalling.calls == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return x, None

    def backward(self, dy, saved, ctx):
        return dy


def test_ctrl_c_waits_for_the_end_of_the_step_and_writes_a_checkpoint(tmp_path):
    def made():
        model = layers.Sequential(layers.Dense(8), Signalling(), layers.Dropout(0.2), layers.Dense(2))
        return gn.Trainer(model, losses.CrossEntropy(), optim.Adam(0.1), device="cpu")

    broken, resumed, whole = made(), made(), made()
    Signalling.calls = 0
    with pytest.raises(KeyboardInterrupt):
        fit(broken, callbacks=[Checkpoint(tmp_path), EarlyStopping("loss")])
    assert broken._step.steps == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fit(resumed, resume=tmp_path)
    fit(whole)
    assert everything(resumed) == everything(whole)


def test_a_second_ctrl_c_does_not_wait():
    from gpunet.train.interrupt import Interrupts

    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_step_that_is_broken_off_is_not_kept(tmp_path):
    """Two signals within a step: its weights may be new and its number old."""

    class Impatient(layers.Tanh):
        calls = 0

        def operands(self, ctx):
            Impatient.calls += 1
            if Impatient.calls == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return ()

    model = layers.Sequential(layers.Dense(4), Impatient(), layers.Dense(2))
    one = gn.Trainer(model, losses.CrossEntropy(), optim.SGD(0.1), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(one, callbacks=[Checkpoint(tmp_path)])
    assert not list(tmp_path.iterdir())
