//! Files of the real Spark, streams of the real JDK, hand-made bytes for every rule, and hostile input.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod checksum;
mod java_streams;
mod ml_metadata;
mod object_file;
mod object_stream;
mod properties;
mod sequence_file;
mod spark;
mod tree;
mod writer;
