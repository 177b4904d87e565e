//! What all rounds gave, by group, cell and contender, and the medians.

use serde::Serialize;

use crate::contender::Contender;
use crate::load::Load;
use crate::sample::Sample;
use crate::stats;

/// The rounds of one contender in one cell.
#[derive(Serialize)]
pub struct Row {
    pub group: String,
    pub cell: String,
    pub contender: String,
    pub load: Load,
    pub rounds: Vec<Sample>,
    /// Why it was not measured.
    pub missing: Option<String>,
}

/// A figure that is not of a load: of memory, of a start.
#[derive(Serialize)]
pub struct Fact {
    pub group: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
}

#[derive(Default, Serialize)]
pub struct Results {
    pub rows: Vec<Row>,
    pub facts: Vec<Fact>,
}

impl Results {
    pub fn add(&mut self, group: &str, cell: &str, contender: Contender, load: &Load, sample: Sample) {
        self.row(group, cell, contender, load).rounds.push(sample);
    }

    /// It cannot be measured here.
    pub fn miss(&mut self, group: &str, cell: &str, contender: Contender, load: &Load, why: String) {
        self.row(group, cell, contender, load).missing = Some(why);
    }

    fn row(&mut self, group: &str, cell: &str, contender: Contender, load: &Load) -> &mut Row {
        let at = self.rows.iter().position(|row| row.is(group, cell, contender)).unwrap_or_else(|| {
            self.rows.push(Row {
                group: group.to_owned(),
                cell: cell.to_owned(),
                contender: contender.name().to_owned(),
                load: *load,
                rounds: Vec::new(),
                missing: None,
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    pub fn fact(&mut self, group: &'static str, what: &'static str, unit: &'static str, value: f64) {
        eprintln!("{group}: {what}: {value:.4} {unit}");
        match self.facts.iter_mut().find(|fact| fact.group == group && fact.what == what) {
            Some(fact) => fact.rounds.push(value),
            None => self.facts.push(Fact { group, what, unit, rounds: vec![value] }),
        }
    }

    pub fn median_fact(&self, group: &str, what: &str) -> Option<f64> {
        let fact = self.facts.iter().find(|fact| fact.group == group && fact.what == what)?;
        stats::median(&fact.rounds)
    }

    /// The median of a figure over the rounds.
    pub fn median(
        &self,
        group: &str,
        cell: &str,
        contender: Contender,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        self.rows.iter().find(|row| row.is(group, cell, contender))?.median(figure)
    }
}

impl Row {
    fn is(&self, group: &str, cell: &str, contender: Contender) -> bool {
        self.group == group && self.cell == cell && self.contender == contender.name()
    }

    pub fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        stats::median(&self.rounds.iter().filter_map(figure).collect::<Vec<f64>>())
    }
}
