"""HTML reports and the code snippets that reproduce a map."""
