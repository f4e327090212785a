//! The learning itself: batches of (what a person asks, what the right article says), two losses, many steps.
//!
//! Never sees tickets or held-out texts. The first loss pulls each question to its own article and away from the
//! other articles of the batch; the second teaches the label of both. Used by the training program.

use std::collections::BTreeMap;

use motet_models::burn::features::FeatureRow;

use crate::Sources;
use crate::network::{Forward, Network, Shape, dot, softmax};
use crate::random::Random;
use crate::texts::{self, Article};

/// What can be set from the command line, each by `--name value`.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) buckets: usize,
    pub(crate) hidden: usize,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) rate: f32,
    pub(crate) temperature: f32,
    pub(crate) label_weight: f32,
    pub(crate) dropout: f32,
    pub(crate) scale: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 20_261_123,
            buckets: 6144,
            hidden: 64,
            steps: 2000,
            batch: 64,
            rate: 0.05,
            temperature: 0.1,
            label_weight: 1.0,
            dropout: 0.2,
            scale: 0.02,
        }
    }
}

impl Settings {
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        fn parse<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
            value.parse().map_err(|_| format!("{name}: {value:?} is no number"))
        }
        match name {
            "--seed" => self.seed = parse(name, value)?,
            "--buckets" => self.buckets = parse(name, value)?,
            "--hidden" => self.hidden = parse(name, value)?,
            "--steps" => self.steps = parse(name, value)?,
            "--batch" => self.batch = parse(name, value)?,
            "--rate" => self.rate = parse(name, value)?,
            "--temperature" => self.temperature = parse(name, value)?,
            "--label-weight" => self.label_weight = parse(name, value)?,
            "--dropout" => self.dropout = parse(name, value)?,
            "--scale" => self.scale = parse(name, value)?,
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    }
}

/// An article with what people ask about it.
struct Topic<'a> {
    article: &'a Article,
    label: usize,
    questions: Vec<&'a str>,
}

/// One text of a batch on its way through the network.
struct View {
    row: FeatureRow,
    forward: Forward,
    label: usize,
}

/// Learns a network from articles and training texts.
pub(crate) fn learn(sources: &Sources, settings: &Settings) -> Result<Network, String> {
    let topics = topics(sources)?;
    let shape = Shape { buckets: settings.buckets, hidden: settings.hidden, labels: sources.labels.len() };
    let mut random = Random(settings.seed);
    let mut network = Network::new(shape, &importance(&topics, settings), &mut random);
    let mut order: Vec<usize> = (0..topics.len()).collect();
    for step in 0..settings.steps {
        random.shuffle(&mut order);
        let batch = &order[..settings.batch.min(order.len())];
        let questions = batch.iter().map(|&at| question(&topics[at], settings, &network, &mut random));
        let questions: Vec<View> = questions.collect();
        let articles = batch.iter().map(|&at| {
            view(&texts::cropped(topics[at].article, &mut random), topics[at].label, settings, &network, &mut random)
        });
        let articles: Vec<View> = articles.collect();
        let loss = pull_together(&mut network, &questions, &articles, settings);
        // The pace falls in a straight line, so that the last steps only polish.
        network.step(settings.rate * (1.0 - 0.9 * step as f32 / settings.steps as f32));
        if (step + 1) % 250 == 0 {
            println!("step {:>5}: loss {loss:.3}", step + 1);
        }
    }
    Ok(network)
}

fn topics(sources: &Sources) -> Result<Vec<Topic<'_>>, String> {
    let label_of = |name: &String| {
        sources.labels.binary_search(name).map_err(|_| format!("{name:?} is the category of no article"))
    };
    let mut questions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in &sources.train {
        label_of(&text.category)?;
        let article = text.article.as_deref().ok_or_else(|| format!("{:?} names no article", text.text))?;
        questions.entry(article).or_default().push(&text.text);
    }
    let topics = sources.articles.iter().map(|article| {
        let label = label_of(&article.category)?;
        Ok(Topic { article, label, questions: questions.remove(article.id.as_str()).unwrap_or_default() })
    });
    let topics = topics.collect::<Result<_, String>>()?;
    match questions.into_keys().next() {
        Some(unknown) => Err(format!("a training text names the article {unknown:?}, which does not exist")),
        None => Ok(topics),
    }
}

/// How long a bucket's first vector is: longer the fewer articles it appears in, 0 where none does.
fn importance(topics: &[Topic<'_>], settings: &Settings) -> Vec<f32> {
    let mut seen = vec![0u32; settings.buckets];
    for topic in topics {
        let mut buckets = Vec::new();
        for text in [topic.article.title.as_str(), topic.article.text.as_str()].iter().chain(&topic.questions) {
            buckets.extend(FeatureRow::from_text(text, settings.buckets as u32).buckets);
        }
        buckets.sort_unstable();
        buckets.dedup();
        for bucket in buckets {
            seen[bucket as usize] += 1;
        }
    }
    let all = topics.len() as f32;
    seen.into_iter().map(|n| if n == 0 { 0.0 } else { settings.scale * (1.0 + (all / n as f32).ln()) }).collect()
}

fn question(topic: &Topic<'_>, settings: &Settings, network: &Network, random: &mut Random) -> View {
    let mut words = match random.below(8) {
        0 => texts::sentence(topic.article, random),
        1 => texts::reworded(&topic.article.title, random),
        _ => {
            let text = random.pick(&topic.questions).copied().unwrap_or(topic.article.title.as_str());
            texts::reworded(text, random)
        }
    };
    if random.chance(0.25) {
        let text = random.pick(&topic.questions).copied().unwrap_or(topic.article.title.as_str());
        words.extend(texts::reworded(text, random));
    }
    view(&words, topic.label, settings, network, random)
}

fn view(words: &[String], label: usize, settings: &Settings, network: &Network, random: &mut Random) -> View {
    let mut row = FeatureRow::from_words(words, settings.buckets as u32);
    for weight in &mut row.weights {
        *weight = if random.chance(settings.dropout) { 0.0 } else { *weight / (1.0 - settings.dropout) };
    }
    let forward = network.forward(&row);
    View { row, forward, label }
}

/// Adds the gradients of both losses of a batch and returns the mean loss.
fn pull_together(network: &mut Network, questions: &[View], articles: &[View], settings: &Settings) -> f32 {
    let (n, hidden) = (questions.len(), network.shape.hidden);
    let similar: Vec<Vec<f32>> = questions
        .iter()
        .map(|q| articles.iter().map(|a| dot(&q.forward.vector, &a.forward.vector) / settings.temperature).collect())
        .collect();
    let mut loss = 0.0;
    let mut pull = vec![vec![0.0f32; n]; n];
    for at in 0..n {
        let mut across = similar[at].clone();
        let mut down: Vec<f32> = similar.iter().map(|row| row[at]).collect();
        softmax(&mut across);
        softmax(&mut down);
        loss -= across[at].max(1e-9).ln() + down[at].max(1e-9).ln();
        for other in 0..n {
            let target = if other == at { 1.0 } else { 0.0 };
            pull[at][other] += across[other] - target;
            pull[other][at] += down[other] - target;
        }
    }
    let scale = 0.5 / (settings.temperature * n as f32);
    for at in 0..n {
        let mut for_question = vec![0.0; hidden];
        let mut for_article = vec![0.0; hidden];
        for other in 0..n {
            for dimension in 0..hidden {
                for_question[dimension] += scale * pull[at][other] * articles[other].forward.vector[dimension];
                for_article[dimension] += scale * pull[other][at] * questions[other].forward.vector[dimension];
            }
        }
        let weight = settings.label_weight / n as f32;
        for (view, gradient) in [(&questions[at], for_question), (&articles[at], for_article)] {
            loss -= settings.label_weight * view.forward.scores[view.label].max(1e-9).ln();
            network.backward(&view.row, &view.forward, &gradient, Some(view.label), weight, 0.05);
        }
    }
    loss / (2 * n) as f32
}
