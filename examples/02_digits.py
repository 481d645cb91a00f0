"""Handwritten digits: a classifier in ten lines, with validation and early stopping."""

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.train.callbacks import EarlyStopping

(x, y), (x_test, y_test) = gn.datasets.digits()
model = layers.Sequential(layers.Dense(128), layers.ReLU(), layers.Dropout(0.2), layers.Dense(10))
trainer = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(1e-3), metrics=["accuracy"])
trainer.fit(x, y, epochs=40, validation_split=0.1, callbacks=[EarlyStopping(patience=5)])

model.summary()
test = trainer.evaluate(x_test, y_test)
print(f"test accuracy {test['accuracy']:.4f}; how often each digit (row) is taken for another (column):")
print(gn.metrics.confusion_matrix(trainer.predict(x_test), y_test, trainer.loss))
assert test["accuracy"] > 0.94
