//! What all rounds gave, by group, cell and contender, and the medians.

use serde::Serialize;

use crate::contender::{Contender, Sample};
use crate::load::Load;
use crate::stats;

/// The rounds of one contender in one cell.
#[derive(Serialize)]
pub struct Row {
    pub group: String,
    pub cell: String,
    pub contender: String,
    pub load: Load,
    pub rounds: Vec<Sample>,
}

#[derive(Default, Serialize)]
pub struct Results {
    pub rows: Vec<Row>,
}

impl Results {
    pub fn add(&mut self, group: &str, cell: &str, contender: Contender, load: &Load, sample: Sample) {
        let row = self.rows.iter_mut().find(|row| row.is(group, cell, contender));
        if let Some(row) = row {
            row.rounds.push(sample);
            return;
        }
        self.rows.push(Row {
            group: group.to_owned(),
            cell: cell.to_owned(),
            contender: contender.name().to_owned(),
            load: *load,
            rounds: vec![sample],
        });
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
