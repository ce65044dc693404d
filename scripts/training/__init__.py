"""Fine-tune ResNet-50 on a labeled data set: the program behind ``scripts/train.py``.

    __main__    the program: from the options to the bundle
    options     the command line
    voc, table  readers of image lists: Pascal VOC's folders; a CSV file
    examples    the data set: a training and a validation part, checked
    pictures    decoding and augmentation; prefetching on threads
    start       initial weights: ImageNet, a file, or random
    plan        hyperparameters; the order of images
    run         training state: checkpoints, interruption
    loop        the training loop
    measure     scores and thresholds on the validation part
    output      writing the bundle
    errors      exceptions

User documentation: ``docs/training.md``.
"""
