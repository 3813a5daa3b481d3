//! Rows and columns, as far as the stages need them: what a `DataFrame` is where there is no Spark.

use serde_json::{Map, Value, json};

use crate::{Annotation, AnnotationImage, DataType, Error, SparkImage, schema};

/// One value of a table.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Cell {
    /// Nothing.
    Null,
    /// Spark's image struct.
    Image(SparkImage),
    /// A string.
    Text(String),
    /// A whole number.
    Long(i64),
    /// A number.
    Double(f64),
    /// A truth value.
    Boolean(bool),
    /// Images with their questions; `None` for a null in the array.
    AnnotationImages(Vec<Option<AnnotationImage>>),
    /// Answers.
    Annotations(Vec<Annotation>),
}

impl Cell {
    /// The type of column that it belongs in; none of a null, which belongs in all.
    pub fn data_type(&self) -> Option<DataType> {
        Some(match self {
            Self::Null => return None,
            Self::Image(_) => DataType::Image,
            Self::Text(_) => DataType::Text,
            Self::Long(_) => DataType::Long,
            Self::Double(_) => DataType::Double,
            Self::Boolean(_) => DataType::Boolean,
            Self::AnnotationImages(_) => DataType::AnnotationImages,
            Self::Annotations(_) => DataType::Annotations,
        })
    }

    fn to_json(&self) -> Option<Value> {
        Some(match self {
            Self::Null => return None,
            Self::Image(image) => json!(image),
            Self::Text(text) => json!(text),
            Self::Long(number) => json!(number),
            Self::Double(number) => json!(number),
            Self::Boolean(value) => json!(value),
            Self::AnnotationImages(images) => json!(images),
            Self::Annotations(annotations) => json!(annotations),
        })
    }
}

/// A column: a name and a value for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    name: String,
    data_type: DataType,
    nullable: bool,
    cells: Vec<Cell>,
}

impl Column {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its values.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Its values.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }
}

/// A table in memory. Stages add columns; rows keep their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataFrame {
    columns: Vec<Column>,
}

impl DataFrame {
    /// A table of one column, `image`, as `spark.read.format("image")` makes it; `None` for a null.
    pub fn from_images(images: impl IntoIterator<Item = impl Into<Option<SparkImage>>>) -> Self {
        let cells = images.into_iter().map(|image| image.into().map_or(Cell::Null, Cell::Image)).collect();
        let image = Column { name: "image".to_owned(), data_type: DataType::Image, nullable: true, cells };
        Self { columns: vec![image] }
    }

    /// Adds a column, or replaces the one of that name.
    ///
    /// # Errors
    ///
    /// [`Error::ColumnLength`] unless it has a value for each row, [`Error::ColumnType`] of a value of another type.
    pub fn with_column(
        self,
        name: impl Into<String>,
        data_type: DataType,
        cells: Vec<Cell>,
    ) -> Result<Self, Error> {
        self.put(Column { name: name.into(), data_type, nullable: true, cells })
    }

    /// Adds a column of texts, one for each row; `None` for a null.
    ///
    /// # Errors
    ///
    /// [`Error::ColumnLength`] unless there is one for each row.
    pub fn with_texts<T: Into<String>>(
        self,
        name: impl Into<String>,
        texts: impl IntoIterator<Item = Option<T>>,
    ) -> Result<Self, Error> {
        let cells = texts.into_iter().map(|text| text.map_or(Cell::Null, |text| Cell::Text(text.into())));
        self.with_column(name, DataType::Text, cells.collect())
    }

    /// Adds a column with the same text in every row: `withColumn(name, lit(text))`.
    #[must_use]
    pub fn with_text(self, name: impl Into<String>, text: &str) -> Self {
        let cells = vec![Cell::Text(text.to_owned()); self.n_rows()];
        let column = Column { name: name.into(), data_type: DataType::Text, nullable: false, cells };
        let mut columns = self.columns;
        put_column(&mut columns, column);
        Self { columns }
    }

    fn put(mut self, column: Column) -> Result<Self, Error> {
        let name = || column.name.clone();
        let (given, expected) = (column.cells.len(), self.n_rows());
        if given != expected && !self.columns.is_empty() {
            return Err(Error::ColumnLength { name: name(), given, expected });
        }
        let other = column.cells.iter().filter_map(Cell::data_type).find(|t| *t != column.data_type);
        if let Some(other) = other {
            let (given, expected) = (other.name(), column.data_type.name());
            return Err(Error::ColumnType { stage: "with_column", name: name(), given, expected });
        }
        put_column(&mut self.columns, column);
        Ok(self)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.cells.len())
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// A column by its name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// A column that a stage takes.
    pub(crate) fn expect(
        &self,
        stage: &'static str,
        name: &str,
        data_type: DataType,
    ) -> Result<&Column, Error> {
        let column = self.column(name).ok_or_else(|| Error::NoColumn {
            stage,
            name: name.to_owned(),
            there: self.columns.iter().map(|c| c.name.clone()).collect(),
        })?;
        if column.data_type == data_type {
            return Ok(column);
        }
        let (given, expected) = (column.data_type.name(), data_type.name());
        Err(Error::ColumnType { stage, name: name.to_owned(), given, expected })
    }

    /// Rows from `start` to before `end`, those that are there.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        let end = end.min(self.n_rows());
        let cells = |column: &Column| column.cells.get(start..end).map(<[Cell]>::to_vec).unwrap_or_default();
        let columns = self.columns.iter().map(|column| Column {
            name: column.name.clone(),
            data_type: column.data_type,
            nullable: column.nullable,
            cells: cells(column),
        });
        Self { columns: columns.collect() }
    }

    /// The answers of a column, row by row.
    ///
    /// # Errors
    ///
    /// [`Error::NoColumn`], [`Error::ColumnType`].
    pub fn annotations(&self, name: &str) -> Result<Vec<&[Annotation]>, Error> {
        let column = self.expect("annotations", name, DataType::Annotations)?;
        Ok(column
            .cells
            .iter()
            .map(|cell| match cell {
                Cell::Annotations(annotations) => annotations.as_slice(),
                _ => &[],
            })
            .collect())
    }

    /// The texts of a column of answers, row by row: `select("answer.result")`.
    ///
    /// # Errors
    ///
    /// As [`DataFrame::annotations`].
    pub fn results(&self, name: &str) -> Result<Vec<Vec<&str>>, Error> {
        let rows = self.annotations(name)?;
        Ok(rows.into_iter().map(|row| row.iter().map(|a| a.result.as_str()).collect()).collect())
    }

    /// The rows of a column of answers that have none, with what went wrong: row, kind and message.
    ///
    /// # Errors
    ///
    /// As [`DataFrame::annotations`].
    pub fn errors(&self, name: &str) -> Result<Vec<(usize, &str, &str)>, Error> {
        let rows = self.annotations(name)?.into_iter().enumerate();
        let errors = rows.flat_map(|(row, annotations)| {
            let errors = annotations.iter().filter_map(Annotation::error);
            errors.map(move |(kind, message)| (row, kind, message))
        });
        Ok(errors.collect())
    }

    /// Spark's JSON of the schema: that of `DataFrame.schema.json()`.
    pub fn schema_json(&self) -> Value {
        let field =
            |c: &Column| schema::field(&c.name, &c.data_type.to_json(), c.nullable, &c.data_type.metadata());
        json!({ "type": "struct", "fields": self.columns.iter().map(field).collect::<Vec<_>>() })
    }

    /// Each row as a JSON object, nulls left out and bytes in base64: `DataFrame.toJSON`.
    pub fn to_json(&self) -> impl Iterator<Item = Value> {
        (0..self.n_rows()).map(|row| {
            let fields = self.columns.iter().filter_map(|c| Some((c.name.clone(), c.cells[row].to_json()?)));
            Value::Object(fields.collect::<Map<_, _>>())
        })
    }
}

fn put_column(columns: &mut Vec<Column>, column: Column) {
    match columns.iter_mut().find(|c| c.name == column.name) {
        Some(old) => *old = column,
        None => columns.push(column),
    }
}
