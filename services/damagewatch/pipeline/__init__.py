"""The way of a photo through the system, in stages that know nothing of Kafka.

`stage` says what a stage is; `parallel` and `batched` are the two that exist; `intake` turns one claim image
into what was perceived of it; `recognition` remembers a batch and finds where its photos were seen before.
"""
