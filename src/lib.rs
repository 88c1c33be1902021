pub mod config;
pub mod model;
pub mod routing;
pub mod wire;
