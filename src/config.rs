//! The configuration of a host: /etc/makuo/makuo.toml.
