"""How many connections are enough? Formulas, and the advice that follows from them; nothing here asks anybody."""
