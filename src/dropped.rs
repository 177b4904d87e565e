//! Values that were left out of records, counted by field and reason: what the metrics page shows of them. Fields
//! of a producer's own naming are counted together, so that nobody can make it longer.

/// The fields that are counted by name, and last the name for all others.
pub const FIELDS: [&str; 20] = [
    "sku_local",
    "asin",
    "upc",
    "ean",
    "upc_ean_asin",
    "est_price_mu",
    "est_price_sigma",
    "est_price_p50",
    "sell_p60",
    "sell_hazard_daily",
    "condition_bucket",
    "sell_condition_factor",
    "sell_seasonality_factor",
    "mins_per_unit",
    "quantity",
    "roi_target",
    "risk_threshold",
    "horizon_days",
    "opt_params",
    "other",
];

/// Why a value could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `Infinity` or `-Infinity`.
    Infinite,
    /// An array or object where a scalar belongs.
    NotScalar,
    /// Text that spells no number.
    NotNumber,
    /// A number that does not fit.
    OutOfRange,
}

impl Reason {
    /// Every one, in the order of the counts.
    pub const ALL: [Reason; 4] = [Reason::Infinite, Reason::NotScalar, Reason::NotNumber, Reason::OutOfRange];

    /// The word of the metrics page.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Infinite => "infinite",
            Reason::NotScalar => "not_scalar",
            Reason::NotNumber => "not_number",
            Reason::OutOfRange => "out_of_range",
        }
    }
}

/// Counts by field, in the order of [`FIELDS`], and by reason, in the order of [`Reason::ALL`].
pub type Counts<T> = [[T; Reason::ALL.len()]; FIELDS.len()];

/// The place of a field among [`FIELDS`].
pub fn place(field: &str) -> usize {
    FIELDS.iter().position(|name| *name == field).unwrap_or(FIELDS.len() - 1)
}
