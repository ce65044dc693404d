"""Fine-tune ResNet-50 on one's own pictures: the program behind ``scripts/train.py``.

    __main__    the order of things
    options     the command line
    voc, table  pictures and labels: Pascal VOC's folders; a CSV file
    examples    what both give: examples in two parts, checked
    pictures    a file becomes pixels, as served or varied; read ahead on threads
    start       the network at step 0: from ImageNet, from a file, or from nothing
    plan        all that decides the result; which picture comes when
    run         the state of a training: checkpoints, interruption
    loop        the training itself
    measure     scores and thresholds on the validation part
    output      the bundle, written whole
    errors      what can be wrong

For people: ``docs/training.md``.
"""
