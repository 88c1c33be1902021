//! Stories told to built programs and running services.

mod sample;
