//! The language the stories are told in: it starts real programs and stops them by process id.

pub mod etcd;
