//! From a verified request to an event.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use hookmill_schema::{Kind, NewEvent, Status};

use super::config::{AmountConfig, Fault, Places, RuleConfig, StatusConfig, TimeConfig, TimeUnit, Under, meant};
use super::expr::{Exprs, Pattern, Request};
use super::json::Wrong;
use super::money::Scale;
use super::tree::{Found, Trees};
use super::{Accepted, HeaderLookup, Refusal, money, time};

/// Longest id in bytes: far above what providers use, far below what an index entry may have (2,704 bytes).
const LONGEST_ID: usize = 512;

/// The compiled rules of a source.
#[derive(Debug)]
pub(super) struct Mapping {
    trees: Trees,
    rules: Vec<Rule>,
}

/// What a rule made of an event.
#[derive(Debug)]
pub(super) enum Mapped {
    Event(Accepted),
    /// No rule wants it; the provider's word for it, if it says one.
    Unwanted(Option<String>),
}

/// How a field of an event came about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Traced {
    /// The field.
    pub field: &'static str,
    /// The place that gave its value, as it is written; `None` where none did.
    pub place: Option<String>,
    /// Its value as it was found.
    pub value: Option<String>,
}

#[derive(Debug)]
struct Rule {
    /// As it is called, or its number.
    name: String,
    when: Vec<(Exprs, Vec<Pattern>)>,
    kind: Kind,
    event_id: Exprs,
    event_type: Exprs,
    occurred_at: (Exprs, TimeUnit),
    order_id: Option<Exprs>,
    dispute_id: Option<Exprs>,
    user_id: Exprs,
    amount: Option<(Exprs, Scale)>,
    currency: Option<Exprs>,
    status: Vec<StatusRule>,
    version: Option<Exprs>,
}

#[derive(Debug)]
struct StatusRule {
    from: Exprs,
    same_as: Option<Exprs>,
    map: Vec<(Pattern, Status)>,
    present: Option<Status>,
}

impl Mapping {
    /// No rules yet; `each` is where a request has its several events.
    pub(super) fn new(each: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            trees: Trees::new(each)?,
            rules: Vec::new(),
        })
    }

    /// Compiles a rule, to be tried after those that are there.
    pub(super) fn add(&mut self, rule: &RuleConfig, name: String) -> Result<(), Fault> {
        let compiled = Rule::compile(rule, name.clone(), &mut self.trees).map_err(|fault| Fault {
            why: format!("in its mapping rule {name:?} {}", fault.why),
            ..fault
        })?;
        self.rules.push(compiled);
        Ok(())
    }

    /// The places that are read; what else has to be read is added to them.
    pub(super) fn trees(&mut self) -> &mut Trees {
        &mut self.trees
    }

    /// Where a request has its several events.
    pub(super) fn each(&self) -> Option<&str> {
        self.trees.each.map(|slot| self.trees.body.pointer(slot))
    }

    /// Reads a body once and gives each of its events, with its own text, to `take`.
    pub(super) fn walk<'a, E>(
        &self,
        body: &'a [u8],
        mut take: impl FnMut(&Found<'a>, &Found<'a>, &'a str) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<Refusal>,
    {
        let text = std::str::from_utf8(body).map_err(|_| Refusal::NotJson("it is not UTF-8".to_owned()))?;
        let not_json = |wrong: Wrong| Refusal::NotJson(wrong.to_string());
        let Some(slot) = self.trees.each else {
            let found = self.trees.item.read(text).map_err(not_json)?;
            return take(&found, &found, text);
        };
        let around = self.trees.body.read(text).map_err(not_json)?;
        let elements = around.elements(slot).ok_or_else(|| Refusal::Unmappable {
            field: "each",
            tried: vec![self.trees.body.pointer(slot).to_owned()],
            why: "is no array of events".to_owned(),
        })?;
        if elements.is_empty() {
            return Err(Refusal::Unmappable {
                field: "each",
                tried: vec![self.trees.body.pointer(slot).to_owned()],
                why: "has no events".to_owned(),
            }
            .into());
        }
        for element in elements {
            let found = self.trees.item.read(element).map_err(not_json)?;
            take(&found, &around, element)?;
        }
        Ok(())
    }

    /// The event that `text` means.
    pub(super) fn event<H: HeaderLookup + ?Sized>(
        &self,
        source: &str,
        request: &Request<'_, '_, H>,
        text: &str,
        now: DateTime<Utc>,
    ) -> Result<Mapped, Refusal> {
        match self.rule(request) {
            Some(rule) => rule.event(source, request, text, now).map(Mapped::Event),
            None => {
                let event_type = self.rules.iter().find_map(|rule| rule.event_type.eval(request));
                Ok(Mapped::Unwanted(event_type.map(Cow::into_owned)))
            }
        }
    }

    fn rule<H: HeaderLookup + ?Sized>(&self, request: &Request<'_, '_, H>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(request))
    }

    /// Which rule takes an event, and which place gave each field.
    pub(super) fn trace<H: HeaderLookup + ?Sized>(&self, request: &Request<'_, '_, H>) -> Option<(&str, Vec<Traced>)> {
        self.rule(request).map(|rule| (rule.name.as_str(), rule.trace(request)))
    }
}

impl Rule {
    fn compile(rule: &RuleConfig, name: String, trees: &mut Trees) -> Result<Self, Fault> {
        let said = |what: &str| format!("does not say `{what}`");
        let kind = rule.kind.ok_or_else(|| said("kind"))?;
        let when = rule.when.as_ref().ok_or_else(|| said("when"))?;
        if when.is_empty() {
            return Err("says nothing in `when`: name a place and its values").under("when");
        }
        let when = when.iter().map(|(place, values)| {
            let at = Exprs::compile(&Places::One(place.clone()), trees);
            let values: Vec<Pattern> = values.list().into_iter().map(Pattern::compile).collect();
            if values.is_empty() {
                return Err("names no value for this place, so it would never fit")
                    .under(place)
                    .under("when");
            }
            Ok((at.under(place).under("when")?, values))
        });
        let when = when.collect::<Result<_, Fault>>()?;
        let mut exprs = |key: &str, places: &Places| Exprs::compile(places, trees).under(key);
        let mut optional =
            |key: &str, places: &Option<Places>| places.as_ref().map(|places| exprs(key, places)).transpose();
        let order_id = optional("order_id", &rule.order_id)?;
        let dispute_id = optional("dispute_id", &rule.dispute_id)?;
        let currency = optional("currency", &rule.currency)?;
        let version = optional("version", &rule.version)?;
        match kind {
            Kind::Order if order_id.is_none() => return Err(said("order_id").into()),
            Kind::Dispute if dispute_id.is_none() => return Err(said("dispute_id").into()),
            Kind::Order | Kind::Dispute => {}
        }
        let amount = match &rule.amount {
            Some(AmountConfig { from, unit, digits }) => {
                let scale = Scale::compile(*unit, digits).under("digits").under("amount")?;
                Some((exprs("from", from).under("amount")?, scale))
            }
            None => None,
        };
        if amount.is_some() && currency.is_none() {
            return Err("has an amount and no `currency`").under("amount");
        }
        let TimeConfig { from, unit } = rule.occurred_at.as_ref().ok_or_else(|| said("occurred_at"))?;
        let occurred_at = (exprs("from", from).under("occurred_at")?, *unit);
        let mut status = Vec::new();
        for (i, one) in rule.status.iter().flatten().enumerate() {
            status.push(StatusRule::compile(one, kind, &mut exprs).under(i).under("status")?);
        }
        let mut needed = |key: &str, places: &Option<Places>| {
            let places = places.as_ref().ok_or_else(|| said(key))?;
            exprs(key, places)
        };
        Ok(Self {
            name,
            when,
            kind,
            event_id: needed("event_id", &rule.event_id)?,
            event_type: needed("event_type", &rule.event_type)?,
            occurred_at,
            order_id,
            dispute_id,
            user_id: needed("user_id", &rule.user_id)?,
            amount,
            currency,
            status,
            version,
        })
    }

    fn fits<H: HeaderLookup + ?Sized>(&self, request: &Request<'_, '_, H>) -> bool {
        self.when.iter().all(|(place, values)| {
            place
                .eval(request)
                .is_some_and(|found| values.iter().any(|value| value.fits(&found)))
        })
    }

    fn event<H: HeaderLookup + ?Sized>(
        &self,
        source: &str,
        request: &Request<'_, '_, H>,
        body: &str,
        now: DateTime<Utc>,
    ) -> Result<Accepted, Refusal> {
        let event_id = id("event_id", &self.event_id, request)?;
        let event_type = id("event_type", &self.event_type, request)?;
        let user_id = id("user_id", &self.user_id, request)?;
        let order_id = optional_id("order_id", self.order_id.as_ref(), self.kind == Kind::Order, request)?;
        let dispute_id = optional_id(
            "dispute_id",
            self.dispute_id.as_ref(),
            self.kind == Kind::Dispute,
            request,
        )?;
        let (places, unit) = &self.occurred_at;
        let text = wanted("occurred_at", places, request)?;
        let occurred_at = time::parse(&text, *unit).map_err(|why| unmappable("occurred_at", places, why))?;
        let currency = match self
            .currency
            .as_ref()
            .and_then(|places| Some((places, places.eval(request)?)))
        {
            Some((places, text)) => Some(money::currency(&text).map_err(|why| unmappable("currency", places, why))?),
            None => None,
        };
        let amount_minor = self.amount(currency.as_deref(), request)?;
        let entity_version = match &self.version {
            Some(places) => match absent_or("version", places, request)? {
                Some(text) => Some(
                    text.parse()
                        .map_err(|_| unmappable("version", places, "is no integer of 64 bits"))?,
                ),
                None => None,
            },
            None => None,
        };
        let (status, word) = self.status(request);
        let event = NewEvent {
            source,
            event_id: &event_id,
            kind: self.kind,
            event_type: &event_type,
            occurred_at,
            user_id: &user_id,
            order_id: order_id.as_deref(),
            dispute_id: dispute_id.as_deref(),
            status,
            provider_status: word.as_deref(),
            amount_minor,
            currency: currency.as_deref(),
            entity_version,
            received_at: now,
            body,
        };
        let value = event.encode().map_err(|error| Refusal::NotJson(error.to_string()))?;
        Ok(Accepted {
            kind: self.kind,
            id: event_id.into_owned(),
            user_id: user_id.into_owned(),
            value,
        })
    }

    fn trace<H: HeaderLookup + ?Sized>(&self, request: &Request<'_, '_, H>) -> Vec<Traced> {
        let traced = |field, places: &Exprs| Traced {
            field,
            place: places.decided(request).map(str::to_owned),
            value: places.eval(request).map(Cow::into_owned),
        };
        let mut fields = vec![
            traced("event_id", &self.event_id),
            traced("event_type", &self.event_type),
            traced("occurred_at", &self.occurred_at.0),
            traced("user_id", &self.user_id),
        ];
        fields.extend(self.order_id.as_ref().map(|p| traced("order_id", p)));
        fields.extend(self.dispute_id.as_ref().map(|p| traced("dispute_id", p)));
        fields.extend(self.amount.as_ref().map(|(p, _)| traced("amount", p)));
        fields.extend(self.currency.as_ref().map(|p| traced("currency", p)));
        fields.extend(self.version.as_ref().map(|p| traced("version", p)));
        let deciding = self.status.iter().find(|rule| {
            let word = rule.word(request);
            word.is_some_and(|word| rule.present.is_some() || rule.map.iter().any(|(known, _)| known.fits(&word)))
        });
        fields.push(match deciding {
            Some(rule) => traced("status", &rule.from),
            None => Traced {
                field: "status",
                place: None,
                value: None,
            },
        });
        fields
    }

    fn amount<H: HeaderLookup + ?Sized>(
        &self,
        currency: Option<&str>,
        request: &Request<'_, '_, H>,
    ) -> Result<Option<i64>, Refusal> {
        let Some((places, scale)) = &self.amount else {
            return Ok(None);
        };
        let Some(text) = absent_or("amount", places, request)? else {
            return Ok(None);
        };
        let Some(currency) = currency else {
            let tried = self.currency.as_ref().map(|c| c.written.clone()).unwrap_or_default();
            return Err(Refusal::Unmappable {
                field: "currency",
                tried,
                why: "is missing, and there is an amount".to_owned(),
            });
        };
        scale
            .minor(&text, currency)
            .map(Some)
            .map_err(|why| unmappable("amount", places, why))
    }

    /// The canonical state, and the provider's word: the one that decided, else one there is.
    fn status<'a, H: HeaderLookup + ?Sized>(&self, request: &Request<'_, 'a, H>) -> (Status, Option<Cow<'a, str>>) {
        let words = || {
            let named = self.status.iter().filter(|rule| rule.present.is_none());
            named
                .filter_map(|rule| rule.from.eval(request))
                .filter(|word| is_clean(word))
        };
        let first_word = || words().next();
        let last_word = || words().next_back();
        for rule in &self.status {
            let Some(word) = rule.word(request) else { continue };
            if let Some((_, status)) = rule.map.iter().find(|(known, _)| known.fits(&word)) {
                return (*status, Some(word));
            }
            if let Some(status) = rule.present {
                return (status, first_word());
            }
        }
        // No rule knows its word: of those that were looked up the last is the most general.
        (Status::Unknown, last_word())
    }
}

impl StatusRule {
    fn compile(
        rule: &StatusConfig,
        kind: Kind,
        exprs: &mut impl FnMut(&str, &Places) -> Result<Exprs, Fault>,
    ) -> Result<Self, Fault> {
        let canonical = |word: &str| {
            kind.status(word).ok_or_else(|| {
                let known: Vec<&str> = kind.statuses().iter().map(|s| s.as_str()).collect();
                let meant = meant(word, known.iter().copied());
                let known = known.join(", ");
                format!("has the {kind} status {word:?}, which is none{meant}: there are {known}")
            })
        };
        if rule.map.is_empty() && rule.present.is_none() {
            return Err("has a status rule with neither `map` nor `present`".into());
        }
        let map = rule
            .map
            .iter()
            .map(|(word, status)| Ok((Pattern::compile(word), canonical(status).under(word).under("map")?)));
        Ok(Self {
            from: exprs("from", &rule.from)?,
            same_as: rule
                .same_as
                .as_ref()
                .map(|places| exprs("same_as", places))
                .transpose()?,
            map: {
                // The word itself counts before one that begins like it, and a longer beginning before a shorter.
                let mut map = map.collect::<Result<Vec<_>, Fault>>()?;
                map.sort_by_key(|(pattern, _)| pattern.breadth());
                map
            },
            present: rule.present.as_deref().map(canonical).transpose().under("present")?,
        })
    }

    /// The provider's word that this rule is about, if it is about this event.
    fn word<'a, H: HeaderLookup + ?Sized>(&self, request: &Request<'_, 'a, H>) -> Option<Cow<'a, str>> {
        let word = self.from.eval(request)?;
        match &self.same_as {
            Some(other) if other.eval(request).as_ref() != Some(&word) => None,
            Some(_) | None => Some(word),
        }
    }
}

fn unmappable(field: &'static str, places: &Exprs, why: impl Into<String>) -> Refusal {
    Refusal::Unmappable {
        field,
        tried: places.written.clone(),
        why: why.into(),
    }
}

fn wanted<'a, H: HeaderLookup + ?Sized>(
    field: &'static str,
    places: &Exprs,
    request: &Request<'_, 'a, H>,
) -> Result<Cow<'a, str>, Refusal> {
    absent_or(field, places, request)?.ok_or_else(|| unmappable(field, places, "is missing"))
}

/// A value that may be absent; an object or an array in its place is not that.
fn absent_or<'a, H: HeaderLookup + ?Sized>(
    field: &'static str,
    places: &Exprs,
    request: &Request<'_, 'a, H>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    match places.eval(request) {
        Some(found) => Ok(Some(found)),
        None => match places.composite(request) {
            Some(what) => Err(unmappable(field, places, format!("{what}, no value"))),
            None => Ok(None),
        },
    }
}

fn id<'a, H: HeaderLookup + ?Sized>(
    field: &'static str,
    places: &Exprs,
    request: &Request<'_, 'a, H>,
) -> Result<Cow<'a, str>, Refusal> {
    let text = wanted(field, places, request)?;
    if is_clean(&text) {
        Ok(text)
    } else {
        Err(unmappable(
            field,
            places,
            format!("is longer than {LONGEST_ID} bytes, or has control characters"),
        ))
    }
}

fn optional_id<'a, H: HeaderLookup + ?Sized>(
    field: &'static str,
    places: Option<&Exprs>,
    required: bool,
    request: &Request<'_, 'a, H>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    match places {
        Some(places) if required || places.eval(request).is_some() => id(field, places, request).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// What may stand in an id or a state: short, and without control characters (Postgres' text has no NUL).
fn is_clean(text: &str) -> bool {
    text.len() <= LONGEST_ID && !text.chars().any(char::is_control)
}
