"""Progression of diabetes: regression, with targets that are scaled, and a learning rate that follows the result."""

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.train.callbacks import EarlyStopping, ReduceOnPlateau

(x, y), (x_test, y_test) = gn.datasets.diabetes()
mean, deviation = y.mean(), y.std()  # about 152 and 77: the network learns numbers around 0

model = layers.Sequential(layers.Dense(16), layers.SiLU(), layers.Dense(1))
trainer = gn.Trainer(model, losses.Huber(), optim.AdamW(3e-3, weight_decay=0.1), metrics=["r2", "mae"])
trainer.fit(
    x,
    (y - mean) / deviation,
    epochs=100,
    validation_split=0.2,
    callbacks=[EarlyStopping(patience=15), ReduceOnPlateau(patience=5, factor=0.5)],
    verbose=0,
)
prediction = trainer.predict(x_test) * deviation + mean
test = trainer.evaluate(x_test, (y_test - mean) / deviation)
print(f"{len(trainer.history)} epochs, learning rate {trainer.optimizer.learning_rate:.2g} at the end")
print(f"test R² {test['r2']:.3f}, mean absolute error {abs(prediction - y_test).mean():.1f} of a range of 25 to 346")
assert test["r2"] > 0.3
