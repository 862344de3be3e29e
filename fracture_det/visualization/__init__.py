"""Everything that is drawn: figures of training, evaluation and speed, and boxes on a radiograph."""
