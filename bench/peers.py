"""The comparison's data for us: peers.py EVENTS.parquet EVENTS.arrow writes the same rows as an Arrow IPC file (timestamps as
nanoseconds, dictionaries undone)."""
import sys
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

source = pq.ParquetFile(sys.argv[1])
writer = None
for batch in source.iter_batches(batch_size=65_536):
    columns, names = [], []
    for name, column in zip(batch.schema.names, batch.columns):
        kind = column.type
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("ns")).cast(pa.int64())
        elif pa.types.is_integer(kind):
            column = column.cast(pa.int64())
        elif pa.types.is_floating(kind):
            column = column.cast(pa.float64())
        columns.append(column)
        names.append(name)
    batch = pa.record_batch(columns, names=names)
    if writer is None:
        writer = pa.ipc.new_file(sys.argv[2], batch.schema)
    writer.write_batch(batch)
writer.close()
