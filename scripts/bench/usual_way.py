"""The usual way: a Flask route that decodes, runs the model and answers, one request at a time."""

from flask import Flask, Response, jsonify, request

from scripts.bench.eager import Classifier

app = Flask(__name__)
classifier = Classifier()


@app.post("/model_predict")
def model_predict() -> Response:
    """Answer one picture."""
    image = classifier.prepare(request.files["image"].read())
    return jsonify(classifier.classify([image])[0])
