"""Losses for uneven labels: balanced mean squared errors, label density weights, balanced softmax, focal."""

from diptych_circuits.balanced.losses import ClassLoss, HeadLoss, RegressionLoss, make_loss

__all__ = ["ClassLoss", "HeadLoss", "RegressionLoss", "make_loss"]
