//! placeholder

pub mod archive;
pub mod demo_images;
