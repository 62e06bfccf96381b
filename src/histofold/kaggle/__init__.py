"""What goes to Kaggle and comes from it: CSV files, their validation, the client, the offline notebook."""
