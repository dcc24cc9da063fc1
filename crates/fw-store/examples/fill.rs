//! Fills a data directory as years of use would: `fill DIR RUNS`. For measurements only, such as of
//! a server's start with a million runs.

use std::path::Path;

use fw_rt::Clock;
use fw_store::Store;
use fw_store::conformance::crowd;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(dir), Some(runs)) = (words.next(), words.next()) else {
        anyhow::bail!("usage: fill DIR RUNS");
    };
    let store = Store::open(Path::new(&dir), Clock::system()).await?;
    crowd::fill(&store, runs.parse()?).await?;
    println!("{runs} runs, {:?}", store.size().await?);
    store.close().await;
    Ok(())
}
