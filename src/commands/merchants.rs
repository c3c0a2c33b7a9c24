//! `tollgate merchant` and `tollgate licence`.

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tollgate::app::Create;
use tollgate::domain::licence::{Licence, Product};
use tollgate::domain::merchant::MerchantStatus;
use tollgate::flows::idempotency::Rendered;
use tollgate::flows::manage_merchants::{MerchantChanges, NewMerchant};
use tollgate::http::admin::body;

use super::onboard::{self, Onboarding};
use super::output::{Listing, Output, Time, timestamp};
use super::{CommandLine, made_now};

#[derive(Clone, Subcommand)]
pub(crate) enum MerchantJob {
    /// Make a merchant.
    Add {
        name: String,
        /// `worldpay_corporate` allows the second webhook format.
        #[arg(long, default_value = "default")]
        gateway: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a merchant with all that it needs: licences, API key, credentials, and a user.
    ///
    /// A second run, for example after one that failed, makes only what is missing. The exit code is 3 if
    /// everything is there, but secrets that an earlier run made were never used. They cannot be shown again.
    Onboard(Onboarding),
    /// List merchants, newest first.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a merchant and its licences.
    Show {
        /// Id or name.
        merchant: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give a merchant another name.
    Rename {
        /// Id or name.
        merchant: String,
        new_name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Suspend a merchant. All its calls are refused at once.
    Suspend {
        /// Id or name.
        merchant: String,
        #[command(flatten)]
        output: Output,
    },
    /// Reinstate a suspended merchant.
    #[command(alias = "reinstate")]
    Restore {
        /// Id or name.
        merchant: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Subcommand)]
pub(crate) enum LicenceJob {
    /// List a merchant's licences.
    List {
        /// Id or name.
        merchant: String,
        #[command(flatten)]
        listing: Listing,
    },
    /// Grant a licence, or extend it.
    Grant {
        /// Id or name.
        merchant: String,
        product: ProductName,
        /// When the licence expires (RFC 3339). Without this it does not expire.
        #[arg(long)]
        expires_at: Option<Time>,
        #[command(flatten)]
        output: Output,
    },
    /// End a licence now.
    End {
        /// Id or name.
        merchant: String,
        product: ProductName,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ProductName {
    ApiKeys,
    EnhancedSecurity,
}

impl From<ProductName> for Product {
    fn from(name: ProductName) -> Self {
        match name {
            ProductName::ApiKeys => Self::ApiKeys,
            ProductName::EnhancedSecurity => Self::EnhancedSecurity,
        }
    }
}

impl LicenceJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::List { .. } => Create::Nothing,
            Self::Grant { .. } | Self::End { .. } => Create::Beside,
        }
    }
}

impl MerchantJob {
    pub(super) const fn creates(&self) -> Create {
        match self {
            Self::Add { .. } | Self::Onboard(_) => Create::First,
            Self::List { .. } | Self::Show { .. } => Create::Nothing,
            Self::Rename { .. } | Self::Suspend { .. } | Self::Restore { .. } => Create::Beside,
        }
    }
}

pub(super) async fn run(line: &CommandLine, job: MerchantJob) -> anyhow::Result<()> {
    match job {
        MerchantJob::Add { name, gateway, output } => {
            let made = line.core.create_merchant(&line.principal, NewMerchant { name, gateway }).await?;
            output.show(&made_now(made)?.body())
        }
        MerchantJob::Onboard(onboarding) => onboard::run(line, onboarding).await,
        MerchantJob::List { listing } => {
            let found = line.core.merchants(&line.principal, None, None, listing.limit).await?;
            let columns = ["id", "name", "gateway", "status", "elsewhere"];
            // Of interest only where there are cells.
            let shown = if found.iter().any(|one| one.is_elsewhere) { 5 } else { 4 };
            listing.print(&found, &columns[..shown])
        }
        MerchantJob::Show { merchant, output } => output.show(&line.merchant(&merchant).await?.body()),
        MerchantJob::Rename { merchant, new_name, output } => {
            let changes = MerchantChanges { name: Some(new_name), ..MerchantChanges::default() };
            change(line, &merchant, changes, output).await
        }
        MerchantJob::Suspend { merchant, output } => {
            change(line, &merchant, status(MerchantStatus::Suspended), output).await
        }
        MerchantJob::Restore { merchant, output } => {
            change(line, &merchant, status(MerchantStatus::Active), output).await
        }
    }
}

fn status(status: MerchantStatus) -> MerchantChanges {
    MerchantChanges { status: Some(status), ..MerchantChanges::default() }
}

async fn change(
    line: &CommandLine,
    merchant: &str,
    changes: MerchantChanges,
    output: Output,
) -> anyhow::Result<()> {
    let id = line.merchant(merchant).await?.id;
    output.show(&line.core.update_merchant(&line.principal, id, None, changes).await?.body())
}

pub(super) async fn run_licence(line: &CommandLine, job: LicenceJob) -> anyhow::Result<()> {
    let (merchant, product, licence, output) = match job {
        LicenceJob::List { merchant, listing } => return list_licences(line, &merchant, &listing).await,
        LicenceJob::Grant { merchant, product, expires_at, output } => {
            let expires_at = expires_at.map(timestamp);
            (merchant, product, Licence { active: true, expires_at }, output)
        }
        LicenceJob::End { merchant, product, output } => {
            (merchant, product, Licence { active: false, expires_at: None }, output)
        }
    };
    let id = line.merchant(&merchant).await?.id;
    let licence = line.core.put_licence(&line.principal, id, product.into(), licence).await?;
    output.show(&body::json_bytes(&licence))
}

async fn list_licences(line: &CommandLine, merchant: &str, listing: &Listing) -> anyhow::Result<()> {
    let licences = line.merchant(merchant).await?.licences;
    let granted = [Product::ApiKeys, Product::EnhancedSecurity].into_iter().filter_map(|product| {
        let licence = licences.of(product)?;
        Some(json!({ "product": product, "active": licence.active, "expires_at": licence.expires_at }))
    });
    listing.print(granted, &["product", "active", "expires_at"])
}
