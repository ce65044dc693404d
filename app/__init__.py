"""ResNet Serving: a picture comes in over HTTP, its labels go out.

The house, from the roof down. A module imports only from floors below its own;
``tests/test_layers.py`` holds that law.

    ROOF     wsgi, worker       the application built from the environment; Gunicorn's worker around it
             master             Gunicorn's master: how it reloads
             responses          Gunicorn's response, in one send
             probe, optimize    programs of their own: measure one worker; earn reduced precisions
             follow, publish    look for new versions; put one in place
    FLOOR 4  factory            create_app(settings): wires everything
    FLOOR 3  web/*              surfaces: Flask blueprints, one for each dialect; never import torch
    FLOOR 2  serving            ModelServer: the one object that the surfaces talk to
             loading, prediction   a version becomes a model at work; the answer to one picture
             studio             native threads for pictures: decoded before the forward, drawn on after it
             diagnosis          why nothing can be served, for people
             fleet, meter       all workers together; what pictures are counted as
    FLOOR 1  batcher, handoff   concurrency: queue, model thread, the way back; import no torch
             native_pool, byte_budget, deadlines   native threads for images and bodies; their bytes, their time
             watchdog, trials, visitors   threads that do not come back, inputs that end workers
             servable, versions, statuses   a loaded version with its threads; which are live, and how they change
             fetching           pictures by URL, from where the operator allows it
             intake             a request's body, read in pieces
             repository, models_file, traffic, routing   which versions are wanted; which of them answers
             manifest, manifest_file, tidy   those that were checked and are to be served; what nobody uses goes
             sizing, footprint  how many workers fit; what one needs, measured by the probe
             engines/*          numerics: pixels to logits on a device; no threads, no gevent
             conversion, quantisation   what only programs that end soon may import
             network, weights, weight_faults, gradcam   the network as torch knows it, and its last feature map
             heatmap            from features to numbers and colours over a picture
             images             from RGB to the network's input
             image_decoding, image_memory   from a file to RGB, and the bytes that it takes
             image_structure, jpeg_structure, image_parts   what a file is made of, counted before it is decoded
             bundle, card, optimized, precision   files: models, what was derived from them
             model_folders, foreign   which folders are models; reading what others wrote
             sums, noise        whether a network is what it was when it was made: its files, its answers
             decision           from logits to the classes that pass; NumPy alone
             agreement          on how many images two networks agree, and what that shows
    GROUND   budgets            what a worker may hold for its requests, in bytes
             scoreboard, endings, quarantine   the workers, how they ended, and by which inputs
             doors              the addresses that Gunicorn listens on
             names              which texts may name a model or a class
             files, counts      files that survive kills, power cuts and full disks; the metrics' own
             gpus               the GPUs, by NVML
             cgroup             the limits of this process's control groups
             settings, errors, logs, log_writer, machine, metrics, outputs   no torch, no Flask

The way of a request, drawn by ``ModelServer.classify``:

    route → images.decode_image (native thread pool) → batcher.submit (bounded queue, deadline)
          → engine.forward (the model thread: one forward for many requests) → labels → JSON

This file imports nothing: Gunicorn's master reads ``app.settings`` and must never touch CUDA or run
a forward, because a fork after CUDA was touched breaks every worker, and a fork after an OpenMP
forward hangs the child.
"""
