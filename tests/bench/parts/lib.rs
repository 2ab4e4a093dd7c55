//! Benchmarks of single parts of makuo: hashing and manifests (`pure`), repair codes (`repair`),
//! encryption (`seal`). Nothing is built here but them.
