//! stub
use anyhow::Result;
use clap::Args;
/// x
#[derive(Debug, Args)]
pub struct BenchArgs {}
pub fn run(_: &BenchArgs) -> Result<()> {
    Ok(())
}
