//! A whole landscape on one machine under load, and one thing after the other goes wrong with it. For a sceptic: each
//! chapter says what happens, what users noticed, and by which counters it shows that something was done about it.
//!
//! Two proxies follow one etcd, each over a [relay](super::relay) of its own; the instances of one service are processes
//! that registered themselves; the load is shared between the proxies. A chapter is kept if no request failed beyond what
//! it says may, and if its mechanism acted: a drill in which nothing happened shows nothing.

mod chapter;
mod deed;
mod display;
mod instances;
mod land;
mod programs;
mod records;
mod registry;
mod told;

use std::time::Duration;

use clap::ValueEnum;

use super::{Finding, Steady};
use crate::Outcome;
use chapter::Chapter;
use display::Display;
use land::Land;
use told::Total;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Flags {
    /// Instances of the service
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(4..=50))]
    instances: u32,
    /// Only these chapters, with commas between them; told in the usual order
    #[arg(long, value_name = "CHAPTER", value_delimiter = ',')]
    only: Vec<Chapter>,
    /// How long an attempt may take before another instance is asked; more on a busy machine
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    per_try: Duration,
    #[command(flatten)]
    pub steady: Steady,
}

pub async fn run(flags: &Flags) -> Outcome<Finding> {
    let is_asked_for = |chapter: &Chapter| flags.only.is_empty() || flags.only.contains(chapter);
    let chapters: Vec<Chapter> = Chapter::value_variants().iter().copied().filter(is_asked_for).collect();
    let mut display = Display::new(chapters.len());
    display.opening(flags.instances);
    let land = Land::open(flags).await;
    display.clear();
    let mut land = land?;

    let promise = "one thing after the other goes wrong, and no request fails but those whose answer breaks off";
    let mut finding = Finding::new("landscape", promise);
    let mut total = Total::of(chapters.len());
    for chapter in chapters {
        let told = land.tell(chapter, &flags.steady, &mut display).await?;
        if !flags.steady.common.json {
            println!("{told}");
        }
        total.add(&told);
        if told.is_the_end() {
            break;
        }
    }
    finding.expect(total.is_kept());
    total.note(&mut finding);
    finding.conclusion = Some(total.to_string());
    Ok(finding)
}

const EXAMPLES: &str = "\
Examples:
  ./drill
  ./drill --only killed,partitioned,upgraded
  ./drill --json > drill.json
  ./drill --per-try 2s --rate 200        on a machine that has other things to do

Its exit code is 0 if every chapter was kept, else 1.";
