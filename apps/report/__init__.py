"""The app `report`: describes the effect of a change on the model, as Markdown for a pull request."""
