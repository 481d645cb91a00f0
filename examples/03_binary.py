"""Benign or malignant: one logit, its probability, and what a missed positive costs."""

import gpunet as gn
from gpunet import layers, losses, optim

(x, y), (x_test, y_test) = gn.datasets.breast_cancer()  # y is 1 for malignant
for weight in (1.0, 5.0):
    model = layers.Sequential(layers.Dense(16), layers.GELU(), layers.Dense(1))
    loss = losses.BinaryCrossEntropy(positive_weight=weight)  # takes logits: no Sigmoid at the end of the model
    trainer = gn.Trainer(model, loss, optim.AdamW(1e-3), metrics=["accuracy", "precision", "recall", "f1"])
    trainer.fit(x, y, epochs=30, verbose=0)
    test = trainer.evaluate(x_test, y_test)
    print(f"positive_weight {weight}: " + "  ".join(f"{name} {value:.3f}" for name, value in test.items()))
    assert test["accuracy"] > 0.9

probability = trainer.predict_proba(x_test)[:5, 0]
print("probabilities of the first five:", probability.round(3), " truth:", y_test[:5, 0])
