//! What the kernel tells, and what is made of it.
