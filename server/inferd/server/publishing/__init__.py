"""What happens to a model before it is in a repository: it is converted, loaded, run, compared, and renamed into place.

For the command line (`publish`, `gate`, `compare`, `optimise`); a server imports nothing of this room.

    staging       Staging: the hidden directory in which a version is built; `publish` renames it into place, whole or
                  not at all. What a killed publisher has left, the next one removes
    probe         probe(...): loads a version directory in a subprocess with the server's own loader, runs sample rows,
                  and gives a ProbeReport and the outputs
    loaded        LoadedVersion: the same inside of such a subprocess, for other programs that run there
    tasks         run_task(...): runs a program in a subprocess: a JSON request on its stdin, JSON answers on a
                  descriptor of its own, with limits of time and memory
    rows          sample rows: reads and writes .npz, .npy and .csv files, fits them to a signature
    parity        compares outputs with those of the original or of another version
    record        writes `.inferd/provenance.json` (`repository.provenance` reads it)
    sources/      what the user names: a file, a directory, an MLflow URI, a DVC file, an archive
    converters/   programs that run in the interpreter that trained the model; they import nothing of inferd

No artefact is opened by a framework in the process of the command itself. Errors are PublishError.
"""
