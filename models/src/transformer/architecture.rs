//! Where the architectures differ: names in Hugging Face's files, and a few flags.

/// One row of the table. Paths are module paths without the prefix; those of a block are relative to it.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Hugging Face's `model_type`.
    pub(crate) model_type: &'static str,
    /// What stands before the encoder's paths in a classification checkpoint.
    pub(crate) prefix: &'static str,
    pub(crate) classification_class: &'static str,
    pub(crate) tower: TowerNames,
    /// Whether positions start after the padding token's id.
    pub(crate) positions_after_padding: bool,
    /// Path of the head's last layer, and path and activation of the one before it.
    pub(crate) head: &'static str,
    pub(crate) head_hidden: Option<(&'static str, &'static str)>,
    /// Key of the dropout before the head's last layer, where Transformers' class has one.
    pub(crate) head_dropout: Option<&'static str>,
    /// The layer that says which token stands in a masked one's place, where there is one.
    pub(crate) vocabulary: Option<VocabularyNames>,
}

/// A tower of blocks: names of its parts, and how they stand.
#[derive(Debug)]
pub(crate) struct TowerNames {
    pub(crate) bottom: BottomNames,
    pub(crate) block: BlockNames,
    /// The path of the blocks, without their number.
    pub(crate) blocks: &'static str,
    /// Norms stand before attention and feed-forward, inside the residual branch (ViT), not after the sum (BERT).
    pub(crate) pre_norm: bool,
    /// Norm above the last block.
    pub(crate) final_norm: Option<&'static str>,
    /// Whether that norm is of the first row alone, and only where this is what is pooled.
    pub(crate) norms_first_row: bool,
    /// Dense layer over the first row, with tanh. A file that lacks it leaves it to the head.
    pub(crate) pooler: Option<&'static str>,
    /// Whether hidden dropout also follows the dense layer of attention.
    pub(crate) attention_output_dropout: bool,
    /// Whether tokens see those before them alone.
    pub(crate) causal: bool,
}

/// Names at the bottom of a tower.
#[derive(Debug)]
pub(crate) struct BottomNames {
    /// Word embeddings, or the convolution over patches.
    pub(crate) input: &'static str,
    /// Whether that convolution has a bias.
    pub(crate) input_bias: bool,
    /// What is added for each position.
    pub(crate) positions: &'static str,
    /// The row before the patches of an image.
    pub(crate) class_token: &'static str,
    /// Whether class token and positions of images are stored as those of one example of a batch.
    pub(crate) stored_as_batch: bool,
    /// Norm above all of them.
    pub(crate) norm: Option<&'static str>,
}

/// Names of the layer over the vocabulary. Its matrix is that of the word embeddings.
#[derive(Debug)]
pub(crate) struct VocabularyNames {
    pub(crate) dense: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) output: &'static str,
    pub(crate) bias: &'static str,
    /// The activation, where it is not that of the blocks.
    pub(crate) activation: Option<&'static str>,
}

/// Names within a block.
#[derive(Debug)]
pub(crate) struct BlockNames {
    /// Site where keys and values are seen.
    pub(crate) attention: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) attention_dense: &'static str,
    /// Site of attention's output. DistilBERT has no such module; its sites have BERT's names.
    pub(crate) attention_output: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) intermediate: &'static str,
    pub(crate) output_dense: &'static str,
    /// Site of the feed-forward half's output.
    pub(crate) output: &'static str,
    pub(crate) output_norm: &'static str,
}

const BERT_BLOCK: BlockNames = BlockNames {
    attention: "attention.self",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_dense: "attention.output.dense",
    attention_output: "attention.output",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output_dense: "output.dense",
    output: "output",
    output_norm: "output.LayerNorm",
};

const BERT_TOWER: TowerNames = TowerNames {
    bottom: BottomNames {
        input: "embeddings.word_embeddings",
        input_bias: true,
        positions: "embeddings.position_embeddings.weight",
        class_token: "",
        stored_as_batch: false,
        norm: Some("embeddings.LayerNorm"),
    },
    block: BERT_BLOCK,
    blocks: "encoder.layer",
    pre_norm: false,
    final_norm: None,
    norms_first_row: false,
    pooler: Some("pooler.dense"),
    attention_output_dropout: true,
    causal: false,
};

const BERT: Architecture = Architecture {
    model_type: "bert",
    prefix: "bert.",
    classification_class: "BertForSequenceClassification",
    tower: BERT_TOWER,
    positions_after_padding: false,
    head: "classifier",
    head_hidden: None,
    head_dropout: Some("classifier_dropout"),
    vocabulary: Some(VocabularyNames {
        dense: "cls.predictions.transform.dense",
        norm: "cls.predictions.transform.LayerNorm",
        output: "cls.predictions.decoder",
        bias: "cls.predictions.bias",
        activation: None,
    }),
};

// RoBERTa's classification class has no pooler: its head has a dense layer of its own.
const ROBERTA: Architecture = Architecture {
    model_type: "roberta",
    prefix: "roberta.",
    classification_class: "RobertaForSequenceClassification",
    tower: TowerNames { pooler: None, ..BERT_TOWER },
    positions_after_padding: true,
    head: "classifier.out_proj",
    head_hidden: Some(("classifier.dense", "tanh")),
    vocabulary: Some(VocabularyNames {
        dense: "lm_head.dense",
        norm: "lm_head.layer_norm",
        output: "lm_head.decoder",
        bias: "lm_head.bias",
        activation: Some("gelu"),
    }),
    ..BERT
};

const XLM_ROBERTA: Architecture =
    Architecture { model_type: "xlm-roberta", classification_class: "XLMRobertaForSequenceClassification", ..ROBERTA };

const DISTILBERT: Architecture = Architecture {
    model_type: "distilbert",
    prefix: "distilbert.",
    classification_class: "DistilBertForSequenceClassification",
    tower: TowerNames {
        block: BlockNames {
            attention: "attention",
            query: "attention.q_lin",
            key: "attention.k_lin",
            value: "attention.v_lin",
            attention_dense: "attention.out_lin",
            attention_output: "attention.output",
            attention_norm: "sa_layer_norm",
            intermediate: "ffn.lin1",
            output_dense: "ffn.lin2",
            output: "output",
            output_norm: "output_layer_norm",
        },
        blocks: "transformer.layer",
        pooler: None,
        attention_output_dropout: false,
        ..BERT_TOWER
    },
    head_hidden: Some(("pre_classifier", "relu")),
    head_dropout: Some("seq_classif_dropout"),
    vocabulary: Some(VocabularyNames {
        dense: "vocab_transform",
        norm: "vocab_layer_norm",
        output: "vocab_projector",
        bias: "vocab_projector.bias",
        activation: None,
    }),
    ..BERT
};

const VIT: Architecture = Architecture {
    model_type: "vit",
    prefix: "vit.",
    classification_class: "ViTForImageClassification",
    tower: TowerNames {
        bottom: BottomNames {
            input: "embeddings.patch_embeddings.projection",
            input_bias: true,
            positions: "embeddings.position_embeddings",
            class_token: "embeddings.cls_token",
            stored_as_batch: true,
            norm: None,
        },
        block: BlockNames {
            attention: "attention.attention",
            query: "attention.attention.query",
            key: "attention.attention.key",
            value: "attention.attention.value",
            attention_norm: "layernorm_before",
            output_norm: "layernorm_after",
            ..BERT_BLOCK
        },
        pre_norm: true,
        final_norm: Some("layernorm"),
        // ViTForImageClassification is built without the pooler that ViT folders may hold.
        pooler: None,
        ..BERT_TOWER
    },
    head_dropout: None,
    vocabulary: None,
    ..BERT
};

const ALL: [&Architecture; 5] = [&BERT, &ROBERTA, &XLM_ROBERTA, &DISTILBERT, &VIT];

impl Architecture {
    /// The row of a `model_type`.
    pub(crate) fn find(model_type: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|architecture| architecture.model_type == model_type)
    }

    /// Every `model_type`.
    pub(crate) fn model_types() -> Vec<&'static str> {
        ALL.map(|architecture| architecture.model_type).into()
    }
}
